// The pages that a mail leads to. Nothing happens until the button is pressed: programs that open the links of mails to
// look at them use nothing up. The token stands behind the #, which no server and no log sees.

const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
history.replaceState(null, "", location.pathname);

const form = document.querySelector("form");
const result = document.getElementById("result");
const isReset = form.elements.password !== undefined;

if (!token) {
  form.hidden = true;
  result.textContent = "Open this page by the link of the mail.";
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = isReset ? { token, password: form.elements.password.value } : { token };
  const call = isReset ? "auth/reset-password" : "auth/verify";
  result.textContent = "One moment …";
  try {
    const response = await fetch(call, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    if (response.ok) {
      form.hidden = true;
      result.textContent = isReset
        ? "The password is set. Sign in with it; all earlier sessions have ended."
        : "Thank you: the address is verified.";
    } else {
      const problem = await response.json();
      const isOld = problem.code === "invalid_token";
      result.textContent = isOld ? "This link is used or too old. Ask for another one." : problem.detail;
    }
  } catch {
    result.textContent = "The server does not answer. Try again in a moment.";
  }
});
