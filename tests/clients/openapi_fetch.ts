// A client whose types openapi-typescript makes: it signs in, refreshes, creates, lists, imports, and handles errors.

import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Problem = components["schemas"]["ProblemDetails"];

const [server, email, password] = process.argv.slice(2) as [string, string, string];
const client = createClient<paths>({ baseUrl: server });

function explain(problem: Problem): string {
  switch (problem.code) {
    case "bad_credentials":
      return "The address or the password is wrong.";
    case "validation_error":
      return (problem.errors ?? []).map(({ loc, code }) => `${loc.join(".")}: ${code}`).join(", ");
    default:
      return problem.detail;
  }
}

function must<T>(answer: { data?: T; error?: unknown; response: Response }): T {
  if (answer.data === undefined) throw new Error(`${answer.response.status} ${JSON.stringify(answer.error)}`);
  return answer.data;
}

const refused = await client.POST("/auth/login", { body: { email, password: "another one" } });
console.log(refused.error && explain(refused.error));

let tokens = must(await client.POST("/auth/login", { body: { email, password } }));
tokens = must(await client.POST("/auth/refresh", { body: { refresh_token: tokens.refresh_token } }));
client.use({
  onRequest({ request }) {
    request.headers.set("Authorization", `Bearer ${tokens.access_token}`);
    return request;
  },
});

const contact = must(
  await client.POST("/contacts", {
    body: { first_name: "Grace", last_name: "Hopper", email: null, phone_number: null, date_of_birth: "1906-12-09" },
  }),
);
const { items, total } = must(await client.GET("/contacts", { params: { query: { q: "grace", with_total: true } } }));
console.log(total, items[0]?.id === contact.id, contact.birthday);

const invalid = await client.PATCH("/contacts/{contact_id}", {
  params: { path: { contact_id: contact.id }, header: { "If-Match": '"1"' } },
  body: { date_of_birth: "2001-02-29" },
});
console.log(invalid.error && explain(invalid.error));

const file = new Blob(["first_name,last_name\r\nMary,Jackson\r\n"], { type: "text/csv" });
const report = must(
  await client.POST("/contacts/import", {
    params: { query: { label: "Imported" } },
    body: { file: file as unknown as string },
    bodySerializer(body) {
      const form = new FormData();
      form.append("file", body.file as unknown as Blob, "contacts.csv");
      return form;
    },
  }),
);
console.log(report.created, report.failed, report.errors.length);
