// The review page: sends what the reviewer decides, and goes on when the server has written it down.
// State that matters is the server's; the address says who and where. How a record is shown is record.js's.
"use strict";

// `unsettled`: the action whose answer was lost, as text, and its token.
const state = { reviewer: "", item: null, busy: false, reasons: [], unsettled: null };
const settings = { get: (key) => stored(localStorage, key), set: (key, value) => store(localStorage, key, value) };
const drafts = { get: (key) => stored(sessionStorage, key), set: (key, value) => store(sessionStorage, key, value) };

function stored(storage, key) {
  try { return storage.getItem(key); } catch { return null; }  // storage may be forbidden
}

function store(storage, key, value) {
  try { value === null ? storage.removeItem(key) : storage.setItem(key, value); } catch { /* not kept then */ }
}

// Asking the server

const UNKNOWN = "The server does not answer: this may or may not have been saved. When it runs, do the same again, which "
  + "saves it once, or load the page anew to see what was saved.";

async function ask(address, body) {
  let response, answer;
  try {
    response = await fetch(address, body && {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    });
    const text = await response.text();
    answer = response.ok ? JSON.parse(text) : { error: reasonIn(text) || `The server answers ${response.status}.` };
  } catch {
    throw new Error(body ? UNKNOWN : "The server does not answer. Try again when it runs.");
  }
  if (!response.ok) throw Object.assign(new Error(answer.error), { status: response.status });
  return answer;
}

function reasonIn(text) {
  try { return JSON.parse(text).error; } catch { return ""; }
}

// Does one thing at a time, and tells what went wrong; returns that too.
async function alone(work) {
  if (state.busy) return null;
  state.busy = true;
  document.body.setAttribute("aria-busy", "true");
  fail("");
  try {
    await work();
    return null;
  } catch (error) {
    fail(error.message);
    if (error.status === 409) show(await ask(placeOf("here")).catch(() => null), "");
    return error;
  } finally {
    state.busy = false;
    document.body.removeAttribute("aria-busy");
  }
}

const placeOf = (step, key = state.item?.key ?? location.hash.slice(1)) =>
  "/api/item?" + new URLSearchParams({ reviewer: state.reviewer, key, step });

function step(kind, words, key) {
  return alone(async () => {
    const answer = await ask(placeOf(kind, key));
    if (!answer.item && kind !== "here" && state.item) {
      say(kind === "next" ? "This is the last record." : "This is the first record.");
      return;
    }
    show(answer, words ?? "");
  });
}

function act(action, more, words) {
  if (!state.item && action !== "undo") return Promise.resolve();
  return alone(async () => {
    const record = state.item && action !== "undo" ? { key: state.item.key, content: state.item.content } : {};
    const chosen = { reviewer: state.reviewer, action, ...record, ...more };
    // What is sent again because its answer was lost has its token still, and is written once.
    const again = state.unsettled?.chosen === JSON.stringify(chosen);
    if (state.unsettled && !again && action === "undo") {
      // Which decision is the last is known again when the server has said what was saved.
      show(await ask(placeOf("here")), "This is what was saved. Press u again to undo your last decision.");
      return;
    }
    const token = again ? state.unsettled.token
      : Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("");
    state.unsettled = { chosen: JSON.stringify(chosen), token };
    let answer;
    try {
      answer = await ask("/api/action", { ...chosen, token });
    } catch (error) {
      if (error.status && error.status !== 500) state.unsettled = null;  // 500: it broke, before or after writing
      throw error;
    }
    if ($("edit-dialog").open) drafts.set(draftOf(state.item), null);
    closeAll();
    show(answer, answer.words ?? words);
  });
}

// Showing a record

function show(answer, words) {
  if (!answer) return;
  const { item, progress } = answer;
  state.item = item;
  state.unsettled = null;
  $("record").hidden = !item;
  $("actions").hidden = false;
  $("done").hidden = !!item;
  for (const id of ["accept", "reject", "edit"]) $(id).disabled = !item;
  $("bar").value = progress.mine ? progress.decided / progress.mine : 1;
  $("count").textContent = `${progress.decided} of ${progress.mine}`;
  if (!item) {
    const kappa = typeof progress.kappa === "number" ? ` Cohen's κ so far: ${progress.kappa.toFixed(2)}.` : "";
    const { records, seconds } = progress.elsewhere, one = records === 1;
    $("done-title").textContent = records ? "Nothing is left for you just now" : "Nothing is left for you to review";
    const others = !records ? "" : ` ${records} more ${one ? "is" : "are"} in front of other reviewers. What they leave`
      + ` undecided is free in ${Math.ceil(seconds / 60)} min: load the page anew then.`;
    $("done-text").textContent =
      `You decided on ${progress.decided}; all reviewers together on ${progress.reviewed} of ${progress.all}.`
      + others + kappa;
    say(words);
    $("done-title").focus();
    return;
  }
  history.replaceState(null, "", `?${new URLSearchParams({ reviewer: state.reviewer })}#${item.key}`);
  record(item);
  say(words);
  scrollTo(0, 0);
  $("question").focus({ preventScroll: true });
}

function say(words) {
  $("status").textContent = words ?? "";
}

function fail(words) {
  for (const id of ["error", "edit-error", "name-error"]) {
    $(id).textContent = words;
    $(id).hidden = !words;
  }
}

// Dialogs

const openDialog = () => document.querySelector("dialog[open]");

function closeAll() {
  for (const dialog of document.querySelectorAll("dialog[open]")) if (dialog.id !== "name-dialog") dialog.close();
}

const draftOf = (item) => `draft ${state.reviewer} ${item.key} ${item.content}`;
const FIELDS = ["question", "answer", "reasoning"];

function openEdit() {
  if (!state.item) return;
  const texts = state.item.mine?.texts ?? state.item.texts;
  const draft = JSON.parse(drafts.get(draftOf(state.item)) ?? "null");
  for (const name of FIELDS) {
    const field = $(`edit-${name}`);
    field.value = draft?.[name] ?? texts[name]?.text ?? "";
    field.lang = texts[name]?.lang ?? "";
  }
  $("edit-reasoning-box").hidden = !texts.reasoning;
  fail("");
  $("edit-dialog").showModal();
  say(draft ? "Your draft is back." : "");
}

function edited() {
  const texts = Object.fromEntries(FIELDS.map((name) => [name, $(`edit-${name}`).value]));
  return state.item.texts.reasoning ? texts : { ...texts, reasoning: null };
}

function saveEdit() {
  const { item } = state, texts = edited();
  const asItWas = FIELDS.every((name) => texts[name] === (item.texts[name]?.text ?? null));
  if (item.mine?.texts && asItWas) act("accept", { content: item.original }, "Accepted as it was before your edit.");
  else act("edit", texts, "Saved as edited.");
}

function openReject() {
  if (!state.item) return;
  $("note").value = "";
  fail("");
  $("reject-dialog").showModal();
  $("reasons").querySelector("button").focus();
}

function rejectFor(reason) {
  const note = $("note").value.trim();
  if (reason === "other" && !note) {
    $("note").focus();
    return;
  }
  act("reject", { reason, note }, "Rejected.");
}

// Keys: where single keys act, a Thai or Cyrillic layout does not matter, as the place of the key counts there.

function keyOf(event) {
  if (/^[\x20-\x7e]$/.test(event.key)) return event.key.toLowerCase();
  const place = /^(?:Key|Digit|Numpad)([A-Z0-9])$/.exec(event.code);
  return place && event.key.length === 1 ? place[1].toLowerCase() : event.key;
}

const KEYS = {
  a: () => act("accept", {}, state.item?.mine?.texts ? "Accepted as you edited it." : "Accepted."),
  r: openReject,
  e: openEdit,
  u: () => act("undo", {}, "Undone: this is the record it was about."),
  n: () => step("next"),
  p: () => step("previous"),
  z: () => enlarge(document.querySelector("#images img")),
  "?": () => $("help-dialog").showModal(),
};
Object.assign(KEYS, { ArrowRight: KEYS.n, ArrowLeft: KEYS.p });

function pressed(event) {
  const dialog = openDialog();
  if (event.isComposing) return;
  if (dialog?.id === "edit-dialog") {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      $("edit-form").requestSubmit();
    }
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const typing = event.target.matches?.("textarea, input:not([type=checkbox])");
  if (dialog?.id === "reject-dialog") {
    if (typing && event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      $("reject-form").requestSubmit();
    } else if (!typing && /^[0-9]$/.test(keyOf(event))) {
      event.preventDefault();
      const reason = state.reasons[Number(keyOf(event)) - 1];
      if (keyOf(event) === "0") $("note").focus(); else if (reason) rejectFor(reason.key);
    }
    return;
  }
  if (dialog || typing || !state.reviewer) return;
  const key = keyOf(event);
  const word = key.length > 1 || key === "?";  // arrows and help are no single letters
  if (!Object.hasOwn(KEYS, key) || (!word && !$("keys-on").checked)) return;
  event.preventDefault();
  KEYS[key]();
}

// Starting

async function begin(reviewer) {
  state.reviewer = reviewer;
  const error = await step("here");
  if (error?.status === 400) {  // it is no name
    state.reviewer = "";
    askName(reviewer);
    return;
  }
  settings.set("reviewer", reviewer);
  $("who").textContent = reviewer;
}

function askName(name) {
  $("name").value = name || state.reviewer || settings.get("reviewer") || "";
  $("name-dialog").showModal();
  $("name").select();
}

async function main() {
  const start = await ask("/api/start");
  state.reasons = start.reasons;
  $("corpus").textContent = start.corpus;
  document.title = `Review ${start.corpus}`;
  $("blind").hidden = !start.blind;
  $("names").replaceChildren(...start.reviewers.map((name) => Object.assign(make("option"), { value: name })));
  $("reasons").replaceChildren(...start.reasons.map((reason, i) => {
    const button = make("button", reason.label, "reason");
    button.type = "button";
    button.prepend(make("kbd", String(i + 1)));
    button.addEventListener("click", () => rejectFor(reason.key));
    return button;
  }));
  $("keys-on").checked = settings.get("keys") !== "off";
  const reviewer = new URLSearchParams(location.search).get("reviewer") || start.reviewer || settings.get("reviewer");
  if (reviewer) await begin(reviewer); else askName();
}

function listen() {
  document.addEventListener("keydown", pressed);
  const buttons = { accept: "a", reject: "r", edit: "e", undo: "u", next: "n", previous: "p", "help-open": "?" };
  for (const [id, key] of Object.entries(buttons)) $(id).addEventListener("click", () => KEYS[key]());
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  $("who").addEventListener("click", () => {
    fail("");
    askName();
  });
  // Without a name there is nothing to do here: what closes the dialog otherwise opens it again.
  $("name-dialog").addEventListener("close", () => state.reviewer || $("name-dialog").showModal());
  $("name-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = $("name").value.trim();
    if (!name) return;
    begin(name);
    $("name-dialog").close();
  });
  $("reject-form").addEventListener("submit", (event) => {
    event.preventDefault();
    rejectFor("other");
  });
  $("edit-form").addEventListener("submit", (event) => {
    event.preventDefault();
    saveEdit();
  });
  $("edit-form").addEventListener("input", () => drafts.set(draftOf(state.item), JSON.stringify(edited())));
  $("edit-dialog").querySelector("[data-close]").addEventListener("click", () => drafts.set(draftOf(state.item), null));
  $("keys-on").addEventListener("change", () => settings.set("keys", $("keys-on").checked ? "on" : "off"));
  addEventListener("hashchange", () => {
    if (!state.reviewer || location.hash.slice(1) === state.item?.key) return;
    closeAll();
    step("here", "", location.hash.slice(1));
  });
}

listen();
main().catch((error) => fail(error.message));
