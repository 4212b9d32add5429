// Swagger UI that stays signed in: over a reload, and past the end of the access token.
// It keeps the pair of tokens in the browser's storage, and the password nowhere.

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

// A refresh token is for one use: of several tabs, one refreshes, and the others find its pair.
const current = () => (navigator.locks ? navigator.locks.request(STORED, refreshed) : refreshed());

async function withCurrentToken(request) {
  if (request.headers?.Authorization?.startsWith("Bearer ")) {
    const tokens = await current();
    if (tokens) request.headers.Authorization = `Bearer ${tokens.access_token}`;
  }
  return request;
}

function keepNewTokens(response) {
  if (response.url === TOKEN_URL && response.ok) keep(JSON.parse(response.text));
  return response;
}

async function signOut() {
  // With an access token past its end the server would not know whose session to end.
  const tokens = await current().finally(forget);
  if (tokens) await fetch(LOGOUT_URL, { method: "POST", headers: { Authorization: `Bearer ${tokens.access_token}` } });
}

const signOutToo = () => ({
  statePlugins: {
    auth: {
      wrapActions: {
        logout: (logout) => (schemes) => {
          signOut();
          return logout(schemes);
        },
      },
    },
  },
});

const ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  validatorUrl: null,
  plugins: [signOutToo],
  requestInterceptor: withCurrentToken,
  responseInterceptor: keepNewTokens,
  onComplete: () => {
    const tokens = stored();
    if (!tokens) return;
    const schema = ui.specSelectors.securityDefinitions().get(SCHEME);
    ui.authActions.authorizeOauth2({ auth: { name: SCHEME, schema }, token: tokens });
  },
});
