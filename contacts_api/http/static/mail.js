// The pages that links in mails open. The token is used only when the button is pressed, so that link scanners do not
// use it up. It is in the fragment of the URL, which is not sent to servers and not logged.

const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
history.replaceState(null, "", location.pathname);
// A link from another mail was opened in the same tab.
addEventListener("hashchange", () => location.reload());

const form = document.querySelector("form");
const button = form.querySelector("button");
const result = document.getElementById("result");
const { password } = form.elements;

if (!token) {
  form.hidden = true;
  result.textContent = "Open this page by the link of the mail.";
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  result.textContent = "One moment …";
  result.textContent = await send().catch(() => "The server does not answer. Try again in a moment.");
  button.disabled = false;
});

// Send the form, and return the message to show.
async function send() {
  const response = await fetch(password ? "auth/reset-password" : "auth/verify", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(password ? { token, password: password.value } : { token }),
  });
  if (response.ok) {
    form.hidden = true;
    return password
      ? "The password is set. Sign in with it; all earlier sessions have ended."
      : "Thank you: the address is verified.";
  }
  const problem = await response.json();
  if (problem.code === "invalid_token") return "This link is used or too old. Ask for another one.";
  return problem.errors?.[0]?.detail ?? problem.detail;
}
