// A client that @hey-api/openapi-ts makes: functions by the names of the operations. It imports a file.

import { createContact, importContacts, login } from "./hey_api/index.js";
import { client } from "./hey_api/client.gen.js";

const [server, email, password] = process.argv.slice(2) as [string, string, string];
client.setConfig({ baseUrl: server });

const signedIn = await login({ body: { email, password }, throwOnError: true });
client.setConfig({ auth: signedIn.data.access_token });

const refused = await createContact({
  body: { first_name: "", last_name: null, email: null, phone_number: null, date_of_birth: null },
});
console.log(refused.error?.code, refused.error?.errors?.map(({ code }) => code).join());

const file = new File(["first_name,last_name\r\nKatherine,Johnson\r\n"], "contacts.csv", { type: "text/csv" });
const report = await importContacts({ body: { file }, query: { dry_run: false }, throwOnError: true });
console.log(report.data.created, report.data.failed);
