// The board of the page Preferences: shows questions from a small supply, so that the next one is there at once, and sends the
// answers in the order in which they were given. `element`, `props`, `server` and `watch` are Gradio's.
const SETTLE_MS = 120; // a key that was meant for the last question must not answer the next one
const visitor = Math.floor(Math.random() * 2 ** 31);
const find = (name) => element.querySelector(name);
let run = null, n = 2, modality = "image";
let supply = [], history = [], counts = null, least = 10;
let generation = 0, shownAt = 0, sending = Promise.resolve();

function say(text) { find(".trouble").textContent = text; }

// One request after another; what a server that is gone leaves unsaid is said here.
function send(name, asked) {
  const reply = sending.then(() => server[name](asked)).then(
    (found) => found || { error: "The server does not answer. Your last choice was not kept: try it again." },
    () => ({ error: "The server does not answer. Your last choice was not kept: try it again." }),
  );
  sending = reply;
  return reply;
}

async function begin() {
  const value = props.value || {};
  const mine = ++generation;
  run = value.run || null; n = value.n || 2; least = value.least || 10;
  supply = []; history = []; counts = null; say("");
  find(".board").hidden = !run;
  find(".nothing").hidden = !!run;
  find(".nothing").innerHTML = value.empty || "";
  if (!run) return;
  find(".prompt").textContent = ""; find(".candidates").textContent = "Looking for what to compare …";
  const found = await send("begin", { run, n, visitor });
  if (mine !== generation) return;
  if (found.error) { find(".candidates").textContent = ""; say(found.error); return; }
  modality = found.modality;
  supply = found.questions;
  tell(found);
  show();
  // From choosing a run to choosing between samples without a click in between.
  if (document.activeElement && document.activeElement.closest("#preferences-run, #preferences-candidates")) find(".board").focus({ preventScroll: true });
}

function tell(found) {
  counts = found.counts;
  const left = Math.max(0, least - counts.chosen);
  const parts = [`${counts.chosen} chosen`, counts.ties ? `${counts.ties} equal` : "", counts.passed ? `${counts.passed} passed over` : ""];
  const more = left ? ` · ${left} more and a reward can be learned` : "";
  find(".counts").textContent = parts.filter(Boolean).join(" · ") + more;
  find(".agreement").innerHTML = found.agreement
    ? found.agreement + "<p>With 95 % intervals; ties and what was passed over do not count, and chance is 50 % with two, 25 % with four. Half of the questions are ones over which rewards quarrel or waver: the random ones say how well they do on ordinary samples.</p>"
    : "<p>How often each reward of the run agrees with you will be shown here.</p>";
}

function show() {
  const question = supply[0], area = find(".candidates");
  for (const button of element.querySelectorAll(".act")) button.disabled = button.dataset.act === "undo" ? !history.length : !question;
  find(".board").classList.toggle("image", modality === "image");
  area.className = `candidates ${modality}${question && question.samples.length > 2 ? " many" : ""}${question ? "" : " done"}`;
  if (!question) {
    find(".prompt").textContent = "";
    area.textContent = "";
    if (counts) refill(area);
    return;
  }
  find(".prompt").textContent = question.prompt;
  const focused = area.contains(document.activeElement) ? document.activeElement.dataset.choice : undefined;
  area.replaceChildren(...question.outputs.map((output, i) => candidate(question, output, i)));
  if (focused !== undefined) area.querySelector(`[data-choice="${focused}"]`)?.focus({ preventScroll: true });
  shownAt = performance.now();
}

// Where nothing is left, the server is asked once more, after all answers that are under way: it alone knows that this is all.
async function refill(area) {
  const mine = generation;
  area.textContent = "Looking for what to compare next …";
  const found = await send("begin", { run, n, visitor });
  if (mine !== generation || supply.length) return;
  if (found.error) { say(found.error); return; }
  tell(found);
  supply = found.questions;
  if (supply.length) show();
  else area.textContent = "That is all: every pair of this run has been compared.";
}

function candidate(question, output, i) {
  const pair = question.samples.length === 2;
  const button = document.createElement("button");
  button.type = "button"; button.className = "candidate"; button.dataset.choice = i;
  const which = document.createElement("span");
  which.className = "which";
  which.innerHTML = `<kbd>${pair ? (i ? "→" : "←") : i + 1}</kbd>`; // and not its round: who chooses should not know it
  const name = pair ? (i ? "right" : "left") : String(i + 1);
  if (modality === "text") {
    const text = document.createElement("span");
    text.className = "text"; text.textContent = output;
    button.append(text, which);
  } else {
    const image = document.createElement("img");
    image.alt = `${pair ? `the ${name} sample` : `sample ${name}`} for: ${question.prompt}`;
    image.onload = () => image.classList.toggle("small", image.naturalWidth <= 128);
    image.src = output;
    button.append(image, which);
  }
  button.setAttribute("aria-label", `Choose the ${pair ? name + " one" : "sample " + name}`);
  if (modality === "text") button.setAttribute("aria-label", `Choose the ${pair ? name + " one" : "sample " + name}: ${output}`);
  return button;
}

function answer(best) {
  if (!supply.length || performance.now() - shownAt < SETTLE_MS) return;
  const question = supply.shift(), entry = { question, id: null }, mine = generation, asked = { run, n, visitor };
  history.push(entry);
  say(""); show();
  // What is pending is looked up when the request goes out: answers given meanwhile have taken from the supply.
  sending = sending.then(async () => {
    let found = null;
    try {
      found = await server.choose({ ...asked, samples: question.samples, best, drawn: question.drawn, pending: mine === generation ? supply.map((q) => q.samples) : [] });
    } catch { /* told below */ }
    if (mine !== generation) return;
    if (!found || found.error) {
      history.splice(history.indexOf(entry), 1);
      supply.unshift(question);
      say((found && found.error) || "The server does not answer. Your last choice was not kept: try it again.");
      show();
      return;
    }
    entry.id = found.id;
    const waited = !supply.length;
    supply.push(...found.questions);
    for (const next of found.questions) for (const output of modality === "image" ? next.outputs : []) new Image().src = output;
    tell(found);
    if (waited) show();
  });
}

function undo() {
  const entry = history.pop();
  if (!entry) return;
  supply.unshift(entry.question);
  say(""); show();
  const mine = generation, of = run;
  sending = sending.then(async () => {
    let found = null;
    try { if (entry.id) found = await server.undo({ run: of, id: entry.id }); } catch { /* told below */ }
    if (mine !== generation) return;
    if (entry.id && (!found || found.error)) say((found && found.error) || "The server does not answer: the choice was not taken back.");
    else if (found) tell(found);
  });
}

const everything = () => supply[0].samples.map((_, i) => i);
const ACTS = { tie: () => supply.length && answer(everything()), skip: () => answer([]), undo };

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button || !element.contains(button)) return;
  if (button.dataset.choice !== undefined) answer([Number(button.dataset.choice)]);
  else if (button.dataset.act) ACTS[button.dataset.act]();
});

function pressed(event) {
  if (!element.isConnected) { document.removeEventListener("keydown", pressed); return; }
  const typing = event.target.closest && event.target.closest("input, textarea, select, [contenteditable='true'], [role='listbox'], [role='slider']");
  if (element.offsetParent === null || !run || typing || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const count = supply.length ? supply[0].samples.length : 0, key = event.key;
  let act = null;
  if (count === 2 && (key === "ArrowLeft" || key === "ArrowRight")) act = () => answer([key === "ArrowLeft" ? 0 : 1]);
  else if (/^[1-4]$/.test(key) && Number(key) <= count) act = () => answer([Number(key) - 1]);
  else if (key === "ArrowUp" && count) act = ACTS.tie;
  else if (key === "ArrowDown" && count) act = ACTS.skip;
  else if (key === "u" || key === "U" || key === "Backspace") act = undo;
  if (!act) return;
  event.preventDefault();
  act();
}
document.addEventListener("keydown", pressed);
watch("value", begin);
begin();
