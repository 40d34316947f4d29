// The address names the page, and the run that is looked at; messages have titles that say what happened; a server that is
// gone is said. Gradio does none of these.
(() => {
  const parameters = () => new URLSearchParams(location.search);
  const shown = () => document.querySelector("#pages [role=tab][aria-selected=true]")?.textContent.trim().toLowerCase();

  // ------------------------------------------------ the address
  const write = (change, push) => {
    const found = parameters();
    change(found);
    const address = `${location.pathname}?${found}`;
    if (address !== location.pathname + location.search) history[push ? "pushState" : "replaceState"](null, "", address);
  };
  const follow = (push) => {
    const page = shown();
    if (!page || page === (parameters().get("page") ?? "story")) return;
    write((found) => (found.set("page", page), found.delete("run")), push);
  };
  const open = (page) => {
    const tabs = [...document.querySelectorAll("#pages [role=tab], .overflow-dropdown button")];
    const tab = tabs.find((one) => one.textContent.trim().toLowerCase() === page);
    tab?.click();
    return Boolean(tab);
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[data-page]");
    if (link && !link.dataset.run && open(link.dataset.page)) event.preventDefault();
    setTimeout(() => follow(true), 60); // once Gradio has shown the page
  });
  addEventListener("keyup", (event) => event.target.closest?.("[role=tab]") && setTimeout(() => follow(true), 60));
  addEventListener("popstate", () => open(parameters().get("page") ?? "story") || location.reload());
  window.raftRun = (page, run) => {
    if (shown() === page && run) write((found) => (found.set("page", page), found.set("run", run)), false);
  };

  // ------------------------------------------------ messages
  const GONE = /Could not parse server response|Connection to the server was lost|Failed to fetch|Connection errored out|NetworkError/;
  const titled = () => {
    for (const title of document.querySelectorAll(".toast-title")) {
      const text = (title.closest(".toast-body") ?? title.parentElement).querySelector('[data-testid="toast-text"]');
      const gone = GONE.test(text?.textContent ?? ""); // Gradio may write the text after the title
      if (!gone && title.textContent.trim() !== "Error") continue;
      title.textContent = gone ? "The server does not answer" : text?.textContent.startsWith(UNFORESEEN.slice(0, 24)) ? "Not foreseen" : "This cannot be done";
      if (gone) text.textContent = "It may have been stopped. Start it again, then reload this page.";
    }
  };
  new MutationObserver(titled).observe(document.documentElement, { childList: true, subtree: true });
})();
