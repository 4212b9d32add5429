// Keeps Swagger UI signed in after a reload and after the access token expires.
// The pair of tokens is in the browser's local storage. The password is never stored.

const SCHEME = "Account";
const STORED = "contacts-api.tokens";
const TOKEN_URL = new URL("auth/token", location).href;
const LOGOUT_URL = new URL("auth/logout", location).href;
const MARGIN_MS = 30_000;

const stored = () => JSON.parse(localStorage.getItem(STORED));
const forget = () => localStorage.removeItem(STORED);

function keep(pair) {
  const tokens = { ...pair, expires_at: Date.now() + pair.expires_in * 1000 };
  localStorage.setItem(STORED, JSON.stringify(tokens));
  return tokens;
}

async function refreshed() {
  const tokens = stored();
  if (!tokens || Date.now() < tokens.expires_at - MARGIN_MS) return tokens;
  const body = new URLSearchParams({ grant_type: "refresh_token", refresh_token: tokens.refresh_token });
  const response = await fetch(TOKEN_URL, { method: "POST", body });
  if (response.ok) return keep(await response.json());
  if (response.status === 401) forget();
  return null;
}

// A refresh token works only once. The lock lets one tab refresh, and the other tabs use its new pair.
const current = () => (navigator.locks ? navigator.locks.request(STORED, refreshed) : refreshed());

// Call the server that this page came from. The server's own address may be wrong behind a proxy.
function withThisServer(response) {
  if (!response.url.endsWith("/openapi.json") || !response.ok) return response;
  const document = JSON.parse(response.text);
  document.servers = [{ url: new URL(".", location).href.replace(/\/$/, "") }];
  const flow = document.components.securitySchemes[SCHEME].flows.password;
  flow.tokenUrl = flow.refreshUrl = TOKEN_URL;
  const text = JSON.stringify(document);
  return Object.assign(response, { text, data: text, obj: document, body: document });
}

async function withCurrentToken(request) {
  // Do not replace a pasted key.
  if (/^Bearer (?!ck_)/.test(request.headers?.Authorization)) {
    const tokens = await current();
    if (tokens) request.headers.Authorization = `Bearer ${tokens.access_token}`;
  }
  return request;
}

function keepNewTokens(response) {
  if (response.url === TOKEN_URL && response.ok) keep(JSON.parse(response.text));
  return withThisServer(response);
}

async function signOut() {
  // Get a valid access token first. With an expired one, the server would not know which session to end.
  const tokens = await current().finally(forget);
  if (tokens) await fetch(LOGOUT_URL, { method: "POST", headers: { Authorization: `Bearer ${tokens.access_token}` } });
}

function closeDialog() {
  ui.authActions.showDefinitions(false);
  document.querySelector("button.authorize")?.focus();
}

const signingIn = () => ({
  statePlugins: {
    auth: {
      wrapActions: {
        authorize: (authorize) => (schemes) => [authorize(schemes), closeDialog()][0],
        authorizeOauth2: (authorize) => (auth) => [authorize(auth), closeDialog()][0],
        logout: (logout) => (schemes) => {
          signOut();
          return logout(schemes);
        },
      },
    },
  },
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && document.querySelector(".dialog-ux")) closeDialog();
  if (event.key !== "Enter" || !event.target.matches(".auth-container input")) return;
  event.preventDefault();
  event.target.closest(".auth-container").querySelector("button.authorize").click();
});

const LITERALS = { true: "True", false: "False", null: "None" };

function inPython(value, indent = "    ") {
  const inner = `${indent}    `;
  const lines = (parts, open, close) => (parts.length ? `${open}\n${parts.map((part) => `${inner}${part},\n`).join("")}${indent}${close}` : open + close);
  if (Array.isArray(value)) return lines(value.map((item) => inPython(item, inner)), "[", "]");
  if (value instanceof Object) {
    return lines(Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${inPython(item, inner)}`), "{", "}");
  }
  return LITERALS[value] ?? JSON.stringify(value);
}

function bodyInPython(body, type) {
  if (!body) return "";
  if (typeof body === "string") {
    try {
      return `    json=${inPython(JSON.parse(body))},\n`;
    } catch {
      return `    content=${JSON.stringify(body)},\n`;
    }
  }
  const fields = body.toJS ? body.toJS() : body;
  if (type.includes("urlencoded")) return `    data=${inPython(fields)},\n`;
  const { file, ...rest } = fields;
  const data = Object.keys(rest).length ? `    data=${inPython(rest)},\n` : "";
  return `    files={"file": open(${JSON.stringify(file?.name ?? "contacts.csv")}, "rb")},\n${data}`;
}

function snippetInPython(request) {
  const headers = request.get("headers")?.toJS() ?? {};
  const type = headers["Content-Type"] ?? "";
  // httpx sets the Content-Type itself.
  delete headers["Content-Type"];
  const method = request.get("method").toLowerCase();
  const body = bodyInPython(request.get("body"), type);
  const call = body && method === "delete" ? `request(\n    "DELETE",` : `${method}(`;
  return `import httpx

response = httpx.${call}
    ${JSON.stringify(request.get("url"))},
    headers=${inPython(headers)},
${body})
print(response.status_code, response.text)`;
}

const ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  validatorUrl: null,
  requestSnippetsEnabled: true,
  requestSnippets: {
    generators: {
      curl_bash: { title: "curl", syntax: "bash" },
      python_httpx: { title: "Python (httpx)", syntax: "python" },
    },
  },
  plugins: [signingIn, () => ({ fn: { requestSnippetGenerator_python_httpx: snippetInPython } })],
  requestInterceptor: withCurrentToken,
  responseInterceptor: keepNewTokens,
  onComplete: () => {
    const tokens = stored();
    if (!tokens) return;
    const schema = ui.specSelectors.securityDefinitions().get(SCHEME);
    ui.authActions.authorizeOauth2({ auth: { name: SCHEME, schema }, token: tokens });
  },
});
