"use strict";
const TIERS = ["hot", "exact", "semantic", "miss"];
const NAMES = { hot: "hot tier", exact: "exact tier", semantic: "semantic tier", miss: "missed" };
const LAST_S = 60, KEPT = 300;
const $ = (id) => document.getElementById(id);
let samples = [], bounds = [], pace = 2, about = null, isPaused = false;

// ---- what the server says

/** The answer to a GET or, with a body, to a POST; an error's message is the server's. */
async function get(path, body) {
  const token = sessionStorage.getItem("token");
  const headers = token ? { authorization: "Bearer " + token } : {};
  if (body !== undefined) headers["content-type"] = "application/json";
  const answer = await fetch(path, body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) });
  if (answer.status === 401) { askForToken(token !== null); throw new Error("401"); }
  const told = await answer.json().catch(() => null);
  if (!answer.ok) throw new Error(told && told.error ? told.error.message : String(answer.status));
  return told;
}

function askForToken(isWrong) {
  sessionStorage.removeItem("token");
  if (isWrong) $("why").textContent = "That is not this server's admin token.";
  $("all").hidden = true;
  $("ask").hidden = false;
  $("token").focus();
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value);
  $("token").value = "";
  $("ask").hidden = true;
  follow();
});

async function follow() {
  for (let round = 0; ; round += 1) {
    try {
      if (!isPaused) {
        const last = samples.length ? samples[samples.length - 1].at : 0;
        const told = await get("live?since=" + last);
        // A server that has started anew counts from zero.
        if (samples.length && told.samples.some((one) => one.texts < samples[samples.length - 1].texts)) samples = [];
        samples = samples.concat(told.samples).slice(-KEPT);
        bounds = told.bounds_s;
        pace = told.every_s;
        if (about === null) about = await get("stats").catch(() => null);
        await lookAround(round);
        show();
      }
    } catch (error) {
      if (error.message === "401") return;
      setState("bad", "no answer from the server");
    }
    await new Promise((done) => setTimeout(done, 1000 * pace));
  }
}

$("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  $("pause").setAttribute("aria-pressed", isPaused);
  $("pause").textContent = isPaused ? "Go on" : "Pause";
});

// ---- arithmetic

const sum = (values) => Object.values(values).reduce((a, b) => a + b, 0);
const missed = (one) => Math.max(0, one.texts - sum(one.hits));

/** What happened between two samples. */
function between(from, to) {
  const seconds = to.at - from.at;
  const texts = to.texts - from.texts;
  const tiers = { miss: missed(to) - missed(from) };
  for (const tier of ["hot", "exact", "semantic"]) tiers[tier] = (to.hits[tier] || 0) - (from.hits[tier] || 0);
  let requests = 0, failed = 0;
  for (const status in to.requests) {
    const count = to.requests[status] - (from.requests[status] || 0);
    requests += count;
    if (status >= "500" && status !== "504") failed += count;
  }
  const counts = bounds.map(() => 0).concat(0);
  for (const outcome in to.durations)
    to.durations[outcome].forEach((n, i) => { counts[i] += n - (from.durations[outcome] ? from.durations[outcome][i] : 0); });
  const hits = texts - tiers.miss;
  return {
    at: to.at, texts: texts / seconds, hitRatio: texts ? hits / texts : null, tiers, total: texts,
    requests: requests / seconds, failed: requests ? failed / requests : null,
    inferred: (to.inferred - from.inferred) / seconds, spared: Math.max(0, to.spared_s - from.spared_s) / seconds,
    calls: (to.upstream_calls - from.upstream_calls) / seconds, saved: (to.upstream_saved_s - from.upstream_saved_s) / seconds,
    tokens: (to.saved_tokens - from.saved_tokens) / seconds,
    p50: quantile(0.5, counts), p99: quantile(0.99, counts), queue: to.queue,
    shed: to.shed - from.shed, dropped: to.dropped - from.dropped,
  };
}

/** As Prometheus estimates it: evenly within a bucket. */
function quantile(share, counts) {
  const total = counts.reduce((a, b) => a + b, 0);
  if (!total) return null;
  let rank = share * total;
  for (let i = 0; i < counts.length; i++) {
    if (rank <= counts[i] && counts[i]) {
      if (i === bounds.length) return bounds[i - 1];
      const low = i ? bounds[i - 1] : 0;
      return low + (bounds[i] - low) * rank / counts[i];
    }
    rank -= counts[i];
  }
  return null;
}

/** Differences over five samples each, so that a plot is steady. */
function course() {
  const points = [];
  for (let i = 1; i < samples.length; i++) points.push(between(samples[Math.max(0, i - 5)], samples[i]));
  return points;
}

// ---- words

const percent = (x, digits = 1) => x === null ? "–" : x > 0 && 100 * x < 10 ** -digits ? `<${10 ** -digits} %` : Math.min((100 * x).toFixed(digits), x < 1 ? 100 - 10 ** -digits : 100).toFixed(digits) + " %";
function amount(x) {
  if (x === null || x === undefined) return "–";
  if (x >= 1e9) return (x / 1e9).toPrecision(3) + " G";
  if (x >= 1e6) return (x / 1e6).toPrecision(3) + " M";
  if (x >= 1e4) return (x / 1e3).toPrecision(3) + " k";
  return x >= 100 || Number.isInteger(x) ? String(Math.round(x)) : x >= 10 ? x.toFixed(1) : x.toFixed(2);
}
function bytes(x) { return x === null ? "–" : amount(x).replace(/ ?([kMG]?)$/, " $1B"); }
function duration(s) {
  if (s === null) return "–";
  const short = (x) => String(Number(x.toPrecision(x < 100 ? 2 : 3)));
  if (s < 0.0009995) return short(1e6 * s) + " µs";
  if (s < 0.9995) return short(1e3 * s) + " ms";
  if (s < 60) return short(s) + " s";
  if (s < 3600) return short(s / 60) + " min";
  return short(s / 3600) + " h";
}
const exactly = (n) => n.toLocaleString("en-US");

// ---- drawing

function make(tag, attributes = {}, ...children) {
  const isSvg = ["svg", "path", "line", "text", "rect"].includes(tag);
  const element = isSvg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
function dot(colour) { const one = make("span", { class: "dot" }); one.style.background = colour; return one; }
function fill(element, ...children) { element.replaceChildren(...children); }
/** "27.1 ms": the unit smaller than the number. */
function figure(text) {
  const [number, ...unit] = String(text).split(" ");
  return unit.length ? [number, make("small", {}, " " + unit.join(" "))] : [number];
}

function path(points) {
  let d = "", open = false;
  for (const [x, y] of points) {
    if (y === null) { open = false; continue; }
    d += (open ? "L" : "M") + x.toFixed(1) + " " + y.toFixed(1);
    open = true;
  }
  return d;
}

function spark(values, colour) {
  const width = 160, height = 30, svg = make("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const top = Math.max(...values.map((v) => v || 0)) || 1;
  const at = (i) => width - (values.length - 1 - i) * width * pace / span();
  const line = values.map((v, i) => [at(i), v === null ? null : height - 2 - (height - 5) * v / top]);
  svg.append(make("path", { d: path(line), fill: "none", stroke: colour, "stroke-width": 1.5, "vector-effect": "non-scaling-stroke" }));
  return svg;
}

/** The seconds that plots show: as far back as is known, a minute at least and ten at most. */
function span() {
  const known = samples[samples.length - 1].at - samples[0].at;
  return [60, 120, 300, 600].find((s) => s >= known) || 600;
}

/** Lines or stacked areas over that time; `tell` turns a value into words. */
function plot(host, title, points, series, { tell, stacked = false, top = null, log = null }) {
  const width = host.clientWidth || 340, height = 170, left = 52, right = 8, head = 8, foot = 20;
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title + ", now: " + series.map((s) => s.name + " " + (points.length && s.of(points[points.length - 1]) !== null ? tell(s.of(points[points.length - 1])) : "none")).join(", ") });
  const now = points.length ? points[points.length - 1].at : 0;
  const x = (at) => width - right - (now - at) / span() * (width - left - right);
  const all = points.flatMap((p) => stacked ? [series.reduce((a, s) => a + (s.of(p) || 0), 0)] : series.map((s) => s.of(p))).filter((v) => v !== null);
  let least = 0, most = top || nice(Math.max(...all, 0));
  if (log) {
    least = 10 ** Math.floor(Math.log10(Math.min(...all.filter((v) => v > 0), log)));
    most = 10 ** Math.ceil(Math.log10(Math.max(...all, least * 10)));
  }
  const share = (v) => log ? Math.log(Math.max(v, least) / least) / Math.log(most / least) : v / most;
  const y = (v) => height - foot - share(v) * (height - head - foot);
  const ticks = log ? decades(least, most) : [0, most / 2, most];
  for (const tick of ticks) {
    svg.append(make("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }));
    svg.append(make("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, tell(tick)));
  }
  for (const [part, anchor] of [[1, "start"], [0.5, "middle"], [0, "end"]])
    svg.append(make("text", { x: x(now - part * span()), y: height - 4, "text-anchor": anchor }, part ? "−" + duration(part * span()) : "now"));
  let below = points.map(() => 0);
  for (const one of series) {
    const values = points.map((p) => one.of(p));
    if (stacked) {
      const upper = values.map((v, i) => v === null ? null : below[i] + v);
      const edge = points.map((p, i) => [x(p.at), upper[i] === null ? null : y(upper[i])]);
      let d = "", run = [];
      const flush = () => {
        if (run.length > 1) d += path(run.map((i) => edge[i])) + path(run.slice().reverse().map((i) => [x(points[i].at), y(below[i])])).replace("M", "L") + "Z";
        run = [];
      };
      upper.forEach((v, i) => { if (v === null) flush(); else run.push(i); });
      flush();
      svg.append(make("path", { d, fill: one.colour, stroke: "var(--card)", "stroke-width": 1 }));
      below = upper.map((v) => v === null ? 0 : v);
    } else {
      const line = points.map((p, i) => [x(p.at), values[i] === null ? null : y(values[i])]);
      svg.append(make("path", { d: path(line), fill: "none", stroke: one.colour, "stroke-width": 2, "stroke-linejoin": "round" }));
    }
  }
  const tip = make("div", { class: "tip", hidden: "" });
  const cursor = make("line", { class: "cursor", y1: head, y2: height - foot, visibility: "hidden" });
  svg.append(cursor);
  svg.addEventListener("pointermove", (event) => {
    if (!points.length) return;
    const at = (event.clientX - svg.getBoundingClientRect().left) / svg.clientWidth * width;
    const near = points.reduce((a, b) => Math.abs(x(b.at) - at) < Math.abs(x(a.at) - at) ? b : a);
    cursor.setAttribute("x1", x(near.at)); cursor.setAttribute("x2", x(near.at)); cursor.setAttribute("visibility", "visible");
    fill(tip, new Date(1000 * near.at).toLocaleTimeString(), ...series.map((s) => make("div", {}, dot(s.colour), s.name, make("b", {}, s.of(near) === null ? "–" : tell(s.of(near))))));
    tip.hidden = false;
    const isRight = x(near.at) > width / 2;
    tip.style.left = isRight ? "" : x(near.at) + 10 + "px";
    tip.style.right = isRight ? width - x(near.at) + 10 + "px" : "";
  });
  svg.addEventListener("pointerleave", () => { tip.hidden = true; cursor.setAttribute("visibility", "hidden"); });
  const legend = make("ul", { class: "legend" }, ...series.map((s) => make("li", {}, dot(s.colour), s.name)));
  fill(host, svg, legend, tip);
}
function nice(x) {
  if (x <= 0) return 1;
  const unit = 10 ** Math.floor(Math.log10(x));
  return unit * [1, 2, 4, 5, 10].find((n) => n * unit >= x);
}
function decades(least, most) {
  const found = [];
  for (let tick = least; tick <= most * 1.001; tick *= 10) found.push(tick);
  return found;
}

// ---- the page

function setState(kind, words) {
  $("state").className = "pill " + kind;
  $("state").textContent = words;
  document.title = (kind === "good" ? "" : "● ") + "cacheproxy";
}

function show() {
  $("all").hidden = false;
  if (!samples.length) return;
  const now = samples[samples.length - 1];
  const from = samples.find((one) => one.at >= now.at - LAST_S) || samples[0];
  const last = from === now ? null : between(from, now);
  const points = course();
  showState(now, last);
  showShares(last);
  showTiles(now, last, points);
  const isSteady = (p) => p.total > 0 ? p : null;
  plot($("plot-tiers"), "Where answers come from", points, TIERS.map((tier) => ({ name: NAMES[tier].replace(" tier", ""), colour: `var(--${tier})`, of: (p) => isSteady(p) && p.tiers[tier] / p.total })), { tell: (v) => percent(v, 0), stacked: true, top: 1 });
  plot($("plot-latency"), "Latency of requests", points, [
    { name: "p50", colour: "var(--exact)", of: (p) => p.p50 },
    { name: "p99", colour: "var(--hot)", of: (p) => p.p99 },
  ], { tell: duration, log: 0.001 });
  plot($("plot-texts"), "Looked up and inferred, a second", points, [
    { name: "looked up", colour: "var(--exact)", of: (p) => p.texts },
    { name: "inferred", colour: "var(--muted)", of: (p) => p.inferred },
  ], { tell: amount });
  showStore(now);
  showUpstreams(now, from);
  showTotals(now);
  showTables();
}

function showState(now, last) {
  const open = Object.entries(now.breakers).filter(([, state]) => state > 0).map(([op]) => op);
  if (open.length) setState("bad", "store away: " + (open.includes("get") ? "all is computed" : open.map((op) => ({ nearest: "lookups by probe", put: "writes" })[op]).join(", ") + " left out"));
  else if (Object.values(now.upstreams).some((state) => state > 0)) setState("bad", "upstream away");
  else if (!now.purges_heard) setState("bad", "purges are not heard");
  else if (last && last.failed > 0.001) setState("bad", percent(last.failed) + " of requests fail");
  else if (last && last.shed > 0) setState("warn", "requests are refused");
  else if (now.queue > 500) setState("warn", "long queue");
  else if (last && last.dropped > 0) setState("warn", "entries are not stored");
  else setState("good", "all well");
  const parts = [];
  if (about) parts.push(about.models.join(", "), "version " + about.version);
  if (now.workers > 1) parts.push(now.workers + " workers");
  $("about").textContent = parts.join(" · ");
}

function showShares(last) {
  const total = last ? last.total : 0;
  fill($("ratio"), ...(total ? figure(percent(last.hitRatio)) : ["–"]));
  fill($("bar"), ...(total ? TIERS : []).filter((tier) => last.tiers[tier] > 0).map((tier) => {
    const part = make("i");
    part.style.background = `var(--${tier})`;
    part.style.flex = `${last.tiers[tier]} 0 3px`;
    return part;
  }));
  fill($("shares"), ...TIERS.map((tier) => make("li", {}, dot(`var(--${tier})`), NAMES[tier], make("b", {}, total ? percent(last.tiers[tier] / total) : "–"))));
}

function showTiles(now, last, points) {
  const tiles = [
    ["Requests", last && amount(last.requests) + " /s", last && last.failed ? percent(last.failed) + " failed" : "none failed", (p) => p.requests, "var(--exact)"],
    ["Latency, median", last && duration(last.p50), "of all requests", (p) => p.p50, "var(--exact)"],
    ["Latency, p99", last && duration(last.p99), "of all requests", (p) => p.p99, "var(--hot)"],
    ["Inference spared", last && amount(last.spared) + " cores", duration(now.spared_s) + " since the start", (p) => p.spared, "var(--semantic)"],
    ["Inferred", last && amount(last.inferred) + " texts/s", now.inferred ? duration(now.inference_s / now.inferred) + " each" : "none yet", (p) => p.inferred, "var(--muted)"],
    ["Queue", amount(now.queue) + (now.queue === 1 ? " text" : " texts"), last && last.shed ? exactly(last.shed) + " requests refused" : "waiting for inference", (p) => p.queue, "var(--muted)"],
  ];
  if (hasUpstreams(now)) tiles.push(
    ["Upstream calls", last && amount(last.calls) + " /s", exactly(now.upstream_calls) + " since the start", (p) => p.calls, "var(--muted)"],
    ["Upstream time saved", last && amount(last.saved) + " s/s", duration(now.upstream_saved_s) + " since the start", (p) => p.saved, "var(--semantic)"],
    ["Tokens saved", last && amount(last.tokens) + " /s", amount(now.saved_tokens) + " since the start", (p) => p.tokens, "var(--semantic)"],
  );
  fill($("tiles"), ...tiles.map(([title, value, note, of, colour]) => make("div", { class: "card tile" },
    make("h2", {}, title), make("div", { class: "value" }, ...figure(value || "–")), make("div", { class: "note" }, note), spark(points.map(of), colour))));
}

const hasUpstreams = (now) => Object.keys(now.upstreams).length > 0;

const BREAKER = ["closed", "half-open", "open"], KINDS = ["good", "warn", "bad"];
const pillOf = (kind, words) => make("span", { class: "pill " + kind }, words);
const breaker = (state) => pillOf(KINDS[state], state ? "breaker " + BREAKER[state] : "well");

function showStore(now) {
  const ops = { get: "Lookups by key", nearest: "Lookups by probe", put: "Writes" };
  const rows = [];
  for (const op in ops) if (op in now.breakers) rows.push([ops[op], breaker(now.breakers[op])]);
  rows.push(
    ["Entries", amount(now.store_entries) + (now.store_bytes === null ? "" : ", " + bytes(now.store_bytes))],
    ["Hot tier", amount(now.hot_entries) + ", " + bytes(now.hot_bytes)],
    ["Waiting to be stored", amount(now.writeback)],
    ["Not stored, since the start", exactly(now.dropped)],
    ["Failed calls, since the start", exactly(now.store_errors)],
    ["Purges by others", now.purges_heard ? "heard" : pillOf("bad", "not heard")],
    ["Memory", bytes(now.memory_bytes)],
  );
  fill($("store"), ...rows.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

function showTotals(now) {
  const total = (name, value) => { const b = make("b", {}, exactly(value)); b.dataset.total = name; return b; };
  fill($("since"), "Since the start: ", total("requests", sum(now.requests)), " requests, ", total("texts", now.texts), " lookups, of which ",
    ...["hot", "exact", "semantic"].flatMap((tier) => [total(tier, now.hits[tier] || 0), ` ${tier}, `]), total("inferred", now.inferred), " inferred. ",
    "As of ", new Date(1000 * now.at).toLocaleTimeString(), ".");
}

let resizing = 0;
addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(show, 100); });
