"use strict";
// The page is complete without this script; it adds the scrubber, the filter, and the enlarged view.
(() => {
  const $ = (selector, within = document) => within.querySelector(selector);
  const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
  document.documentElement.classList.add("js");

  // ------------------------------------------------ rounds
  const round = $("#round"), prompt = $("#prompt"), play = $("#play");
  const numbers = $$("#rounds .told").map((told) => $("b", told).textContent.replace(/\D/g, ""));
  let clock = 0;

  const show = () => {
    const [r, p] = [round.value, prompt.value];
    for (const one of $$("#rounds [data-round]")) {
      one.hidden = one.dataset.round !== r || (one.dataset.of !== undefined && one.dataset.of !== p);
    }
    $("#round-number").value = numbers[r];
    round.setAttribute("aria-valuetext", `round ${numbers[r]}`);
    for (const cell of $$("[data-go]")) {
      if (cell.dataset.go === `${p} ${r}`) cell.setAttribute("aria-current", "true");
      else cell.removeAttribute("aria-current");
    }
    const ends = $$("#ends [data-of]");
    if (ends.some((one) => one.dataset.of === p)) ends.forEach((one) => (one.hidden = one.dataset.of !== p));
    $("#pointed").textContent = "";
  };

  // Where every round draws other prompts, the other of the two follows the one that was moved.
  const panels = $$("#rounds .panel").map((one) => one.dataset);
  const follow = (moved, key, other, otherKey) => {
    const there = panels.filter((one) => one[key] === moved.value);
    if (there.length && !there.some((one) => one[otherKey] === other.value)) other.value = there[0][otherKey];
  };
  const go = (to) => {
    round.value = to;
    follow(round, "round", prompt, "of");
    show();
  };

  const stop = () => {
    clearInterval(clock);
    clock = 0;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  };

  const start = () => {
    go(round.value === round.max ? 0 : round.value);
    play.textContent = "Pause";
    play.setAttribute("aria-pressed", "true");
    clock = setInterval(() => {
      go(Number(round.value) + 1);
      if (round.value === round.max) stop();
    }, 1100);
  };

  if (round) {
    round.addEventListener("input", () => (stop(), follow(round, "round", prompt, "of"), show()));
    prompt.addEventListener("change", () => (follow(prompt, "of", round, "round"), show()));
    play.addEventListener("click", () => (clock ? stop() : start()));
    for (const cell of $$("[data-go]")) {
      cell.addEventListener("click", () => {
        [prompt.value, round.value] = cell.dataset.go.split(" ");
        stop();
        show();
        $("#rounds").scrollIntoView({ block: "start" });
      });
    }
    const point = (event) => {
      const cell = event.target.closest(".panel [title]");
      if (cell) $("#pointed").textContent = cell.title;
    };
    for (const kind of ["pointerover", "focusin"]) $("#rounds").addEventListener(kind, point);
    show();
  }

  // ------------------------------------------------ one stop of the tabulator for a group, arrows within it
  for (const group of $$("[data-roving]")) {
    const items = $$("button", group);
    items.forEach((item, i) => (item.tabIndex = i ? -1 : 0));
    group.addEventListener("keydown", (event) => {
      const at = items.indexOf(event.target.closest("button"));
      const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
      if (at < 0 || to === undefined || !items[to]) return;
      event.preventDefault();
      items.forEach((item, i) => (item.tabIndex = i === to ? 0 : -1));
      items[to].focus();
    });
  }

  // ------------------------------------------------ filter by prompt, and all pairs
  for (const more of $$("[data-more]")) {
    more.addEventListener("click", () => {
      const grid = document.getElementById(more.dataset.more);
      more.setAttribute("aria-expanded", String(grid.classList.toggle("all-shown")));
      more.textContent = grid.classList.contains("all-shown") ? "Show fewer" : more.dataset.label;
    });
    more.dataset.label = more.textContent;
  }
  const filter = $("#filter");
  filter?.addEventListener("input", () => {
    const wanted = filter.value.trim().toLowerCase();
    let found = 0;
    for (const one of $$("[data-prompt]")) {
      one.hidden = !one.dataset.prompt.toLowerCase().includes(wanted);
      found += !one.hidden;
    }
    document.documentElement.classList.toggle("filtered", wanted !== "");
    $("#found").textContent = wanted && !found ? "No prompt contains that." : "";
  });

  // ------------------------------------------------ enlarged
  const zoom = $("#zoom"), stage = $("#stage");
  let current = null;

  const neighbours = () => {
    const group = current.closest("[data-roving], .pairs, .panel");
    return $$("[data-enlarge]", group).filter((one) => one.checkVisibility?.() ?? one.offsetParent);
  };
  const fill = (trigger) => {
    current = trigger;
    stage.className = trigger.closest("[data-sheet]")?.dataset.sheet ?? "";
    stage.replaceChildren(...[...trigger.childNodes].map((node) => node.cloneNode(true)));
    $("#zoom-prompt").textContent = trigger.closest("[data-caption]").dataset.caption;
    $("#zoom-scores").replaceChildren(...trigger.title.split(" · ").map((text) => Object.assign(document.createElement("li"), { textContent: text })));
    const all = neighbours(), at = all.indexOf(trigger);
    $("#previous").disabled = at <= 0;
    $("#next").disabled = at < 0 || at >= all.length - 1;
  };
  const step = (by) => {
    const all = neighbours(), to = all[all.indexOf(current) + by];
    if (to) fill(to);
  };
  document.addEventListener("click", (event) => {
    const trigger = event.target.closest("[data-enlarge]");
    if (!trigger) return;
    fill(trigger);
    zoom.showModal();
  });
  $("#previous").addEventListener("click", () => step(-1));
  $("#next").addEventListener("click", () => step(1));
  $("#close").addEventListener("click", () => zoom.close());
  zoom.addEventListener("click", (event) => event.target === zoom && zoom.close());
  zoom.addEventListener("close", () => current?.focus());
  zoom.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
})();
