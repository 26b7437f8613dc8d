
// ---- tables: namespaces, entries, requests, workers

const ROWS = 50;
let namespaces = [], semantic = null, requests = [], workers = [], wrongHits = [];

/** Ask for what changes less often than the plots, each in its turn. */
async function lookAround(round) {
  if (round % 2 === 0) {
    namespaces = (await get("namespaces")).namespaces;
    requests = (await get("requests")).requests;
  }
  if (round % 5 === 0) {
    semantic = await get("thresholds");
    workers = (await get("workers")).workers;
    wrongHits = (await get("wrong-hits")).wrong_hits;
  }
}

function showSaved() {
  const all = (field) => namespaces.reduce((total, n) => total + n[field], 0);
  const hits = namespaces.reduce((total, n) => total + sum(n.hits), 0);
  const rows = [["Hits since the start", exactly(hits)], ["Inference that they saved", duration(all("spared_s"))]];
  if (all("saved_s")) rows.push(["Upstream time", duration(all("saved_s"))], ["Tokens", amount(all("saved_tokens"))]);
  if (all("saved_cost")) rows.push(["Money, by your prices", money(all("saved_cost"))]);
  fill($("saved"), ...rows.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

function showTables() {
  showSaved();
  showWhetherEntries();
  showNamespaces();
  showRequests();
  showWorkers();
}

const clock = (at) => new Date(1000 * at).toLocaleTimeString();
const moment = (at) => new Date(1000 * at).toLocaleString();
const ago = (at) => duration(Math.max(0, Date.now() / 1000 - at)) + " ago";
const money = (x) => x < 1 ? x.toFixed(4) : exactly(Number(x.toFixed(2)));
const short = (id) => id.slice(0, 12);
const nameOf = (one) => one.tenant ? `${one.tenant}/${one.name}` : one.namespace === "other" ? "all others" : one.namespace;

/**
 * Bring the rows of a table up to date. Rows and cells that stay the same are left alone, so that
 * neither the focus nor a screen reader loses its place.
 */
function keepRows(body, list, keyOf, cellsOf) {
  const held = document.activeElement, known = new Map([...body.children].map((row) => [row.dataset.key, row]));
  list.forEach((one, i) => {
    const key = keyOf(one), row = known.get(key) || make("tr");
    known.delete(key);
    row.dataset.key = key;
    cellsOf(one).forEach(([said, draw, attributes = {}], n) => {
      let cell = row.children[n];
      if (cell && cell.dataset.said === String(said)) return;
      const fresh = make(n === 0 ? "th" : "td", n === 0 ? { scope: "row", ...attributes } : attributes, ...[draw ? draw() : said].flat());
      fresh.dataset.said = said;
      if (cell) cell.replaceWith(fresh); else row.append(fresh);
    });
    if (body.children[i] !== row) body.insertBefore(row, body.children[i] || null);
  });
  for (const row of known.values()) row.remove();
  if (held !== document.activeElement && body.contains(held)) held.focus({ preventScroll: true });
}

/** Columns whose heads sort a table; `of` gives what is compared, or nothing. */
function sortable(head, columns, first, changed) {
  const order = { by: first, down: true };
  fill(head, make("tr", {}, ...columns.map(([id, title, of]) => {
    const cell = make("th", { scope: "col" }, of ? make("button", { class: "sort" }, title) : title);
    if (of) cell.firstChild.addEventListener("click", () => {
      order.down = order.by === id ? !order.down : id !== "name" && id !== "model";
      order.by = id;
      mark();
      changed();
    });
    cell.dataset.id = id;
    return cell;
  })));
  function mark() {
    for (const cell of head.firstChild.children) {
      if (cell.dataset.id === order.by) cell.setAttribute("aria-sort", order.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
  }
  mark();
  const of = () => columns.find(([id]) => id === order.by)[2];
  return (list) => list.slice().sort((a, b) => {
    const [x, y] = [of()(a), of()(b)];
    if (x === y) return a.key < b.key ? -1 : 1;
    if (x === null || y === null) return x === null ? 1 : -1;
    return (x < y ? -1 : 1) * (order.down ? -1 : 1);
  });
}

// ---- namespaces

const STATES = ["open", "suspended", "aside", "learning", "closed"];
const STATE_KINDS = { open: "good", suspended: "bad", aside: "warn" };
const COLUMNS = [
  ["name", "Namespace", (n) => nameOf(n)],
  ["model", "Model", (n) => n.model],
  ["lookups", "Lookups", (n) => n.lookups],
  ["rate", "Hit rate", (n) => n.lookups ? sum(n.hits) / n.lookups : null],
  ["hot", "Hot", (n) => n.lookups ? n.hits.hot / n.lookups : null],
  ["exact", "Exact", (n) => n.lookups ? n.hits.exact / n.lookups : null],
  ["semantic", "Semantic", (n) => n.lookups ? n.hits.semantic / n.lookups : null],
  ["saved", "Time saved", (n) => n.spared_s + n.saved_s],
  ["tokens", "Tokens saved", (n) => n.saved_tokens || null],
  ["cost", "Money saved", (n) => n.saved_cost || null],
  ["state", "Semantic tier", (n) => n.evidence ? -STATES.indexOf(n.evidence.state) : null],
  ["labels", "Labels", (n) => n.evidence ? n.evidence.labels : null],
  ["wrong", "Wrong, at most", (n) => n.evidence && n.evidence.labels ? n.evidence.upper : null],
];
let told = null;
const sorted = sortable($("namespaces-head"), COLUMNS, "lookups", () => showNamespaces());
$("namespaces-filter").addEventListener("input", () => showNamespaces());

/** What the semantic tier knows of each model and namespace, in the same words for all kinds. */
function evidence() {
  const found = new Map();
  if (!semantic) return found;
  for (const n of semantic.namespaces) {
    const one = n.thresholds.find((t) => t.min_similarity === semantic.min_similarity) || n.thresholds[0];
    found.set(`${n.model}|${short(n.id)}`, {
      ...n, state: n.is_aside ? "aside" : one.state, threshold: one.threshold, labels: Math.round(one.labels), needed: one.pairs_needed,
      error: one.error_estimate, upper: one.error_upper_bound, promised: semantic.max_error, score: "probe",
    });
  }
  for (const [model, chat] of Object.entries(semantic.chat ? semantic.chat.models : {}))
    for (const n of chat.namespaces)
      found.set(`${model}|${short(n.id)}`, { ...n, needed: n.labels_needed, error: n.error_estimate, upper: n.error_upper_bound, promised: semantic.chat.max_error, judge: chat });
  return found;
}

function listed() {
  const known = evidence(), rows = namespaces.map((n) => ({ ...n, key: `${n.model}|${n.namespace}` }));
  const seen = new Set(rows.map((n) => n.key));
  for (const [key, e] of known)
    if (!seen.has(key)) rows.push({ key, model: key.split("|")[0], namespace: short(e.id), tenant: e.tenant, name: e.namespace, lookups: 0, hits: { hot: 0, exact: 0, semantic: 0 }, spared_s: 0, saved_s: 0, saved_tokens: 0, saved_cost: 0 });
  return rows.map((n) => ({ ...n, evidence: known.get(n.key) || null }));
}

function showNamespaces() {
  const wanted = $("namespaces-filter").value.trim().toLowerCase();
  const all = sorted(listed().filter((n) => `${nameOf(n)} ${n.model} ${n.namespace}`.toLowerCase().includes(wanted)));
  keepRows($("namespaces"), all.slice(0, ROWS), (n) => n.key, cellsOfNamespace);
  const rest = all.length - ROWS;
  $("namespaces-more").textContent = rest > 0 ? `And ${exactly(rest)} more: sort or filter to see them.` : all.length ? "" : wanted ? "None matches." : "Nothing has been looked up yet.";
  $("promises").textContent = promises();
  showStory(told && listed().find((n) => n.key === told));
}

function promises() {
  if (!semantic) return "";
  const say = (what, one) => one.mode === "off" ? `${what}: off` : one.fixed_threshold !== null ? `${what}: serves from ${one.fixed_threshold} on, by hand, nothing is promised`
    : `${what}: at most ${percent(one.max_error, 0)} of semantic hits wrong, with ${percent(one.confidence, 0)} confidence`;
  return [say("Embeddings", semantic), ...(semantic.chat ? [say("Chat", semantic.chat)] : [])].join(" · ");
}

function cellsOfNamespace(n) {
  const part = (tier) => n.lookups ? percent(n.hits[tier] / n.lookups) : "–";
  const e = n.evidence, state = e ? e.state : "–", rate = n.lookups ? percent(sum(n.hits) / n.lookups) : "–";
  const isTold = told === n.key;
  return [
    [`${nameOf(n)}${isTold}`, () => {
      const button = make("button", { class: "link", "aria-expanded": isTold, "aria-controls": "story", title: n.namespace }, nameOf(n));
      button.addEventListener("click", () => { told = told === n.key ? null : n.key; showNamespaces(); });
      return button;
    }],
    [n.model],
    [exactly(n.lookups)],
    [`${rate}${Object.values(n.hits)}`, () => [rate, tierBar(n)]],
    [part("hot")], [part("exact")], [part("semantic")],
    [n.spared_s + n.saved_s ? duration(n.spared_s + n.saved_s) : "–"],
    [n.saved_tokens ? amount(n.saved_tokens) : "–"],
    [n.saved_cost ? money(n.saved_cost) : "–"],
    [state, () => e ? pillOf(STATE_KINDS[state] || "", state) : "–"],
    [e ? amount(e.labels) : "–"],
    [e && e.labels ? percent(e.upper, 2) : "–"],
  ];
}

function tierBar(n) {
  const bar = make("span", { class: "bar small", "aria-hidden": "true" });
  for (const tier of ["hot", "exact", "semantic"]) {
    const part = make("i");
    part.style.background = `var(--${tier})`;
    part.style.width = 100 * n.hits[tier] / Math.max(1, n.lookups) + "%";
    bar.append(part);
  }
  return bar;
}

// ---- one namespace's story

let toldAs = "";
function showStory(n) {
  const panel = $("story");
  panel.hidden = !n;
  const wrong = n ? wrongHits.filter((one) => one.model === n.model && short(one.namespace) === n.namespace).slice(0, 10) : [];
  const now = JSON.stringify([n, wrong]);
  if (!n || now === toldAs) return;
  toldAs = now;
  $("story-title").textContent = `${nameOf(n)} · ${n.model}`;
  const e = n.evidence;
  $("story-words").textContent = e ? e.story : "No text of this namespace has had a neighbour yet: the semantic tier knows nothing of it.";
  const facts = [["Namespace id", n.namespace], ["Lookups", exactly(n.lookups)], ["Inferred or asked upstream", exactly(Math.max(0, n.lookups - sum(n.hits)))]];
  if (e) facts.push(
    ["Threshold", e.threshold === null ? "none" : `${e.threshold.toFixed(3)} (${e.score} score)`],
    ["Wrong, estimated", e.labels ? `${percent(e.error, 2)}, at most ${percent(e.upper, 2)}` : "–"],
    ["Promised", `at most ${percent(e.promised, 1)}`],
    ["Labels", exactly(e.labels)],
    ["Labels missing", e.needed === null ? "no number is enough yet" : e.needed ? "about " + exactly(e.needed) : "none"],
    ["Alarms", Object.entries(e.alarms).filter(([, count]) => count).map(([kind, count]) => `${kind} ${count}`).join(", ") || "none"],
  );
  if (e && e.judge && e.judge.judge) facts.push(["Judge", `${e.judge.judge}: sees ${percent(e.sensitivity, 0)} of wrong answers, rejects ${percent(e.false_rejects)} of right ones`], ["Its cost", `${percent(e.judge.own_cost_share)} of what clients' requests cost`]);
  fill($("story-facts"), ...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  const changes = e ? e.changes.slice(-12).reverse() : [];
  fill($("story-changes"), ...(changes.length ? changes.map((one) => make("li", {}, make("time", {}, moment(one.at)), one.threshold === null ? "closed" : `serves from ${one.threshold.toFixed(3)}`, one.threshold === null ? "" : make("span", { class: "muted" }, `at most ${percent(one.error_upper_bound, 2)} wrong`))) : [make("li", {}, "Nothing has changed since this worker started.")]));
  fill($("story-wrong"), ...(wrong.length ? wrong.map((one) => {
    const look = make("button", { class: "link" }, make("code", {}, one.key.slice(0, 16)));
    look.setAttribute("aria-label", "Look up the entry " + one.key.slice(0, 16));
    look.addEventListener("click", () => lookUp(n, one.key));
    return make("li", {}, make("time", {}, moment(one.at)), look, one.score === null ? "" : `score ${one.score.toFixed(3)}`, make("span", { class: "muted" }, `found by ${one.found_by}`));
  }) : [make("li", {}, "No hit was found to be wrong.")]));
}
$("story-close").addEventListener("click", () => {
  const row = [...$("namespaces").children].find((one) => one.dataset.key === told);
  told = null;
  showNamespaces();
  if (row) row.querySelector("button").focus();
});

// ---- entries

const KIND_FIELDS = { text: ["text"], pair: ["query", "text"], request: ["api", "request"], key: ["key"] };
let found = null;

function showKind() {
  const shown = KIND_FIELDS[$("find-kind").value];
  for (const name of ["text", "query", "api", "request", "key"]) {
    $(`find-${name}-row`).hidden = !shown.includes(name);
    $(`find-${name}`).required = shown.includes(name);
  }
}
$("find-kind").addEventListener("change", showKind);
showKind();

function showWhetherEntries() {
  const may = sessionStorage.getItem("token") !== null;
  $("find").hidden = !may;
  $("find-not").hidden = may;
}

function lookUp(n, key) {
  if (n.tenant) { $("find-tenant").value = n.tenant; $("find-namespace").value = n.name; }
  $("find-kind").value = "key";
  showKind();
  $("find-key").value = key;
  location.hash = "entries";
  $(n.tenant ? "find-go" : "find-namespace").focus();
}

function say(words, kind = "") {
  $("find-said").className = "note " + kind;
  $("find-said").textContent = words;
}

async function findEntries() {
  const order = { tenant: $("find-tenant").value, namespace: $("find-namespace").value };
  for (const name of KIND_FIELDS[$("find-kind").value]) order[name] = $("find-" + name).value;
  if ("request" in order) {
    try { order.request = JSON.parse(order.request); } catch (error) { say("The request is not JSON: " + error.message, "wrong"); return null; }
  }
  if ("key" in order) order.key = order.key.trim().replace(/-\d+$/, "").toLowerCase();
  const told = await get("find", order);
  found = { ...told, tenant: order.tenant, namespace: order.namespace };
  fill($("found"), ...found.entries.map(showEntry));
  return found;
}

$("find").addEventListener("submit", async (event) => {
  event.preventDefault();
  say("Looking…");
  fill($("found"));
  try {
    const told = await findEntries();
    if (!told) return;
    const models = told.sought.map((one) => one.model).filter(Boolean).join(", ");
    say(told.entries.length ? (told.entries.length === 1 ? "One entry." : `${told.entries.length} entries.`) : "There is no such entry" + (models ? ` of ${models}` : "") + ` in ${told.tenant}/${told.namespace}.`);
  } catch (error) { say(error.message, "wrong"); }
});

const KIND_WORDS = { embedding: "Embedding", score: "Score", completion: "Completion" };

function showEntry(entry) {
  const facts = entry.facts, now = Date.now() / 1000;
  const tiers = [...(entry.hot_in.length ? [`hot tier of ${workerNames(entry.hot_in)}`] : []), ...(entry.is_stored ? ["store"] : []), ...(entry.waits_in.length ? ["waiting to be stored"] : [])];
  const rows = [["Key", make("code", { class: "key" }, entry.key)], ["Namespace", `${found.tenant}/${found.namespace}`], ["Where", tiers.join(", ")]];
  if (facts) rows.push(
    ["Made", `${moment(facts.created_at)}, ${ago(facts.created_at)}`],
    ["Time to live", facts.expires_at > now ? `${duration(facts.expires_at - now)} left of ${duration(facts.expires_at - facts.created_at)}` : "expired"],
    ...(facts.fresh_until < facts.expires_at ? [["Fresh for", facts.fresh_until > now ? duration(facts.fresh_until - now) : "it is stale"]] : []),
    ["Tokens", facts.kind === "completion" ? `${exactly(facts.tokens)} asked, ${exactly(facts.completion_tokens)} answered` : exactly(facts.tokens)],
    ...(facts.dimensions ? [["Dimensions", exactly(facts.dimensions)]] : []),
  );
  if (entry.size_bytes !== null) rows.push(["Size", bytes(entry.size_bytes)], ["Found by likeness", entry.is_indexed ? "yes" : "no"], ["Tags", entry.tags.length ? make("span", {}, ...entry.tags.flatMap((tag) => [make("code", { title: "Stores keep a hash of each tag" }, short(tag)), " "])) : "none"]);
  const purge = make("button", { class: "danger" }, "Purge…");
  purge.addEventListener("click", () => confirmPurge(entry));
  return make("article", { class: "entry" },
    make("div", { class: "head" }, make("h3", {}, `${facts ? KIND_WORDS[facts.kind] : "Entry"} · ${entry.model || "a model that is not served here"}`), purge),
    make("dl", {}, ...rows.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)))));
}

function workerNames(pids) {
  return workers.length > 1 ? `${pids.length} of ${workers.length} workers (${pids.join(", ")})` : "this server";
}

function confirmPurge(entry) {
  $("purge-what").textContent = `The entry ${entry.key.slice(0, 16)}… of ${entry.model || "an unknown model"} in ${found.tenant}/${found.namespace} is removed from the store and from every worker. The log of admin actions says so. It cannot be undone; the next request for it is computed again.`;
  $("purge").dataset.key = entry.key;
  $("purge").showModal();
  $("purge-no").focus();
}
$("purge-no").addEventListener("click", () => $("purge").close());
$("purge-yes").addEventListener("click", async () => {
  const dialog = $("purge"), order = { tenant: found.tenant, namespace: found.namespace, key: dialog.dataset.key };
  dialog.close();
  say("Purging…");
  try {
    const { removed } = await get("purge", order);
    // The other workers hear of it within a tenth of a second.
    for (let look = 0; look < 20; look += 1) {
      const left = await findEntries();
      if (!left.entries.some((entry) => entry.key === order.key)) break;
      await new Promise((done) => setTimeout(done, 100));
    }
    say(removed === 1 ? "Purged: one entry was removed, in every worker." : removed ? `Purged: ${removed} entries were removed.` : "Purged: the store no longer had it; no worker serves it any more.", "done");
  } catch (error) { say(error.message, "wrong"); }
  $("find-go").focus();
});

// ---- requests

function showRequests() {
  const onlyFailed = $("requests-failed").checked;
  const list = requests.filter((one) => !onlyFailed || one.status >= 400).slice(0, ROWS);
  const several = workers.length > 1;
  const names = new Map(namespaces.filter((n) => n.tenant).map((n) => [n.namespace, nameOf(n)]));
  keepRows($("requests"), list, (one) => `${one.at}|${one.worker}|${one.duration_ms}`, (one) => [
    [clock(one.at)],
    [one.route],
    [one.model || "–"],
    [names.get(one.namespace) || one.namespace || "–"],
    [one.tier || "–", () => one.tier in NAMES ? [dot(`var(--${one.tier})`), one.tier] : one.tier || "–"],
    [String(one.status), () => pillOf(one.status < 400 ? "" : one.status < 500 ? "warn" : "bad", String(one.status))],
    [duration(one.duration_ms / 1000)],
    [several ? String(one.worker) : one.request_id || "–"],
  ]);
  $("requests-last").textContent = several ? "Worker" : "Request id";
  $("requests-more").textContent = list.length ? "" : onlyFailed ? "None of the requests in the sample failed." : "No request yet.";
}
$("requests-failed").addEventListener("change", showRequests);

// ---- upstreams and workers

function showUpstreams(now, from) {
  const list = Object.keys(now.upstreams).sort();
  $("upstreams-section").hidden = !list.length;
  const since = (field, name) => (now[field][name] || 0) - (from[field][name] || 0);
  keepRows($("upstreams"), list, (name) => name, (name) => [
    [name],
    [String(now.upstreams[name]), () => breaker(now.upstreams[name])],
    [exactly(since("upstream_answers", name))],
    [exactly(since("upstream_failures", name))],
    [exactly(now.upstream_answers[name] || 0)],
    [exactly(now.upstream_failures[name] || 0)],
  ]);
}

function showWorkers() {
  const newest = Math.max(...workers.map((one) => one.purge_generation));
  keepRows($("workers"), workers, (one) => String(one.pid), (one) => {
    const f = one.figures, worst = Math.max(0, ...Object.values(f.breakers), ...Object.values(f.upstreams));
    return [
      [String(one.pid)],
      [duration(Math.round(Date.now() / 1000 - one.started_at))],
      [exactly(sum(f.requests))],
      [`${amount(f.hot_entries)}, ${bytes(f.hot_bytes)}`],
      [amount(f.queue)],
      [amount(f.writeback)],
      [bytes(f.memory_bytes)],
      [String(worst), () => breaker(worst)],
      [`${f.purges_heard}${one.purge_generation === newest}`, () => !f.purges_heard ? pillOf("bad", "not heard") : one.purge_generation === newest ? pillOf("good", "heard") : pillOf("warn", "one behind")],
    ];
  });
}

follow();
