// Every page: marks that scripts run, shows moments in local time, copies a token.
document.documentElement.classList.add("js");
for (const node of document.querySelectorAll("time[datetime]")) {
  const moment = new Date(node.dateTime);
  node.title = node.textContent;
  node.textContent = moment.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const field = document.getElementById(button.dataset.copy);
    field.select();
    try {
      await navigator.clipboard.writeText(field.value);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Press Ctrl+C";
    }
  });
}
