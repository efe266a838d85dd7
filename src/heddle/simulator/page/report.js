// Draws the plots of a study from the figures in #data. Plain script: no library, nothing is loaded.
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const runs = data.runs;
  const esc = (said) => String(said).replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
  const cut = (said, most) => (said.length > most ? `${said.slice(0, most - 1)}…` : said);

  // -- numbers as people write them (report.py writes the tables alike) --
  const whole = (value) => Math.floor(value + 0.5);
  const grouped = (value) => whole(value).toLocaleString("en-US");
  const two = (value, base, large, small) => {
    const rest = value % base;
    return `${Math.floor(value / base)} ${large}` + (rest ? ` ${rest} ${small}` : "");
  };
  const time = (s) => {
    if (s < 9.95) return `${whole(s * 10) / 10} s`;
    if (whole(s) < 60) return `${whole(s)} s`;
    if (whole(s) < 600) return two(whole(s), 60, "min", "s");
    const minutes = whole(s / 60);
    if (minutes < 60) return `${minutes} min`;
    if (minutes < 1440) return two(minutes, 60, "h", "min");
    const hours = whole(s / 3600);
    return hours < 2400 ? two(hours, 24, "d", "h") : `${grouped(s / 86400)} d`;
  };
  const amount = (v) => {
    if (v >= 99.95 || v === Math.floor(v)) return grouped(v);
    return v >= 0.995 ? v.toFixed(1) : String(Number(v.toPrecision(2)));
  };
  const writers = {
    time,
    share: (v) => `${(whole(v * 1000) / 10).toFixed(1)} %`,
    index: (v) => (v < 9.9995 ? v.toFixed(3) : amount(v)),
    count: amount,
    hours: amount,
  };
  const write = (v, kind) => (v === null || v === undefined ? "–" : writers[kind](v));

  // -- how a run looks: colour by policy and shape by cluster where both differ, else all by run --
  const unique = (values) => [...new Set(values)];
  const policies = unique(runs.map((run) => run.policy));
  const sizes = unique(runs.map((run) => run.gpus)).sort((a, b) => a - b);
  const both = policies.length > 1 && sizes.length > 1;
  const dashes = ["", "7 3", "2 3", "9 3 2 3", "4 2", "1 4"];
  runs.forEach((run, at) => {
    const hue = both ? policies.indexOf(run.policy) : at;
    const form = both ? sizes.indexOf(run.gpus) + (hue >> 3) : at >> 3;
    run.at = at;
    run.colour = `var(--c${hue % 8})`;
    run.shape = (both ? form : at) % 6;
    run.dash = dashes[form % 6];
    run.shown = true;
  });
  const shown = () => runs.filter((run) => run.shown);
  const marker = (run, x, y, r, extra = "") => {
    const fill = `fill="${run.complete ? run.colour : "var(--card)"}" stroke="${run.colour}" stroke-width="1.5" ${extra}`;
    const poly = (...points) =>
      `<polygon points="${points.map(([dx, dy]) => `${(x + dx * r).toFixed(1)},${(y + dy * r).toFixed(1)}`).join(" ")}" ${fill}/>`;
    switch (run.shape) {
      case 1: return poly([-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]);
      case 2: return poly([0, -1.25], [1.25, 0], [0, 1.25], [-1.25, 0]);
      case 3: return poly([0, -1.15], [1.15, 0.9], [-1.15, 0.9]);
      case 4: return poly([0, 1.15], [1.15, -0.9], [-1.15, -0.9]);
      case 5: return poly([-1.2, -0.6], [0, -1.2], [1.2, -0.6], [1.2, 0.6], [0, 1.2], [-1.2, 0.6]);
      default: return `<circle cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="${r}" ${fill}/>`;
    }
  };
  const badge = (run) => `<svg viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">${marker(run, 6, 6, 4.2)}</svg>`;
  document.querySelectorAll("i.key").forEach((key) => { key.innerHTML = badge(runs[key.dataset.run]); });

  // -- scales --
  const minute = 60, hour = 3600, day = 86400;
  const spans = [1, 2, 5, 10, 15, 30, minute, 2 * minute, 5 * minute, 10 * minute, 15 * minute, 30 * minute, hour,
    2 * hour, 3 * hour, 6 * hour, 12 * hour, day, 2 * day, 5 * day, 7 * day, 14 * day, 28 * day, 56 * day, 140 * day, 365 * day];
  const rungs = [0.01, 0.1, 1, 10, minute, 10 * minute, hour, 6 * hour, day, 7 * day, 28 * day, 280 * day];
  const pace = (span, count, kind) => {
    const rough = span / count || 1;
    if (kind === "time" && rough > 0.5) {
      const found = spans.find((one) => one >= rough);
      if (found) return found;
    }
    const power = 10 ** Math.floor(Math.log10(rough));
    return power * [1, 2, 5, 10].find((one) => one * power >= rough * 0.999);
  };
  const ticks = (from, to, count, kind) => {
    const step = pace(to - from, count, kind), found = [];
    for (let k = Math.ceil(from / step - 1e-9); k * step <= to + step * 1e-9; k++) found.push(k * step);
    return found;
  };
  const tick = (value, kind) => (kind === "index" ? String(Number(value.toPrecision(6))) : kind === "share" ? `${Number((value * 100).toPrecision(6))} %` : write(value, kind));
  // linear from 0, or logarithmic with a place of its own for 0
  const scale = (values, kind, log, from, to) => {
    const most = Math.max(0, ...values);
    const positive = values.filter((v) => v > 0);
    if (log && positive.length) {
      const steps = kind === "time" ? rungs : Array.from({ length: 22 }, (_, k) => 10 ** (k - 6));
      const low = Math.min(...positive);
      const first = Math.max(0, steps.findLastIndex((one) => one <= low));
      let last = steps.findIndex((one) => one >= most);
      if (last < 0) last = steps.length - 1;
      last = Math.max(last, first + 1);
      const [a, b] = [Math.log(steps[first]), Math.log(steps[last])];
      const gutter = values.some((v) => !(v > 0)) ? 0.06 * (to - from) : 0;
      const at = (v) => (v > 0 ? from + gutter + ((Math.log(v) - a) / (b - a)) * (to - from - gutter) : from);
      const marks = steps.slice(first, last + 1);
      return { at, ticks: gutter ? [0, ...marks] : marks };
    }
    const top = kind === "share" ? Math.max(1, most) : most * 1.02 || 1;
    return { at: (v) => from + (v / top) * (to - from), ticks: ticks(0, top, Math.abs(to - from) / (to > from ? 110 : 45), kind) };
  };

  // -- the tip beside the pointer --
  const tip = $("tip");
  const tell = (markup, event) => {
    tip.innerHTML = markup;
    tip.hidden = false;
    const { clientX: x, clientY: y } = event;
    const left = x + 16 + tip.offsetWidth > innerWidth ? x - 16 - tip.offsetWidth : x + 16;
    tip.style.left = `${Math.max(4, left) + scrollX}px`;
    tip.style.top = `${Math.max(4, Math.min(y + 14, innerHeight - tip.offsetHeight - 6)) + scrollY}px`;
  };
  const hush = () => { tip.hidden = true; };
  const listed = (head, lines) =>
    `<b>${esc(head)}</b><table>${lines.map(([name, said]) => `<tr><td>${name}</td><td>${esc(said)}</td></tr>`).join("")}</table>`;

  // -- widths: what there is on a screen, what the sheet has on paper --
  let paper = false;
  const width = (host, share = 1) => (paper ? 1020 / share - 20 : Math.max(280, host.clientWidth - 18));

  // -- side by side --
  const figureOf = (key) => data.figures.find((one) => one.key === key);
  const chosen = () => figureOf($("figure").value);
  const dots = () => {
    const host = $("dots"), figure = chosen(), w = width(host);
    const part = figure.parts ? $("part").value : "";
    const log = $("log").checked && !$("log").disabled;
    const ones = shown();
    const groups = !part
      ? ones.map((run) => ({ name: run.label, lines: [{ run, value: run.values[figure.key] }] }))
      : data[part === "by_size" ? "sizes" : "queues"].map((name) => ({
        name, lines: ones.map((run) => ({ run, value: (run[part][name] || {})[figure.key] ?? null })),
      }));
    const values = groups.flatMap((group) => group.lines.map((line) => line.value)).filter((v) => v !== null);
    if (!values.length) { host.innerHTML = '<p class="note">No run has this figure.</p>'; $("dots-said").textContent = ""; return; }
    const pitch = part ? (ones.length > 6 ? 11 : 15) : 26, gap = part ? 12 : 0;
    const named = Math.max(...groups.map((group) => group.name.length));
    const left = Math.min(w * 0.34, 24 + named * 7.2), right = 92, top = 8;
    const height = groups.reduce((sum, group) => sum + group.lines.length * pitch + gap, 0);
    const axis = scale(values, figure.kind, log, left, w - right);
    let y = top, svg = "";
    for (const value of axis.ticks) {
      const x = axis.at(value).toFixed(1);
      svg += `<line class="gl" x1="${x}" x2="${x}" y1="${top}" y2="${top + height}"/><text x="${x}" y="${top + height + 17}" text-anchor="middle">${tick(value, figure.kind)}</text>`;
    }
    groups.forEach((group, index) => {
      const tall = group.lines.length * pitch + gap;
      if (part && index) svg += `<line class="gl" x1="0" x2="${w}" y1="${y}" y2="${y}"/>`;
      const room = Math.floor((left - 18) / 6.6);
      svg += `<text class="strong" x="${left - 12}" y="${y + tall / 2 + 4}" text-anchor="end">${esc(cut(group.name, room))}<title>${esc(group.name)}</title></text>`;
      group.lines.forEach((line, at) => {
        const mid = y + gap / 2 + pitch * (at + 0.5);
        if (line.value === null) {
          svg += pitch > 12 ? `<text x="${left + 4}" y="${mid + 4}">–</text>` : "";
          return;
        }
        const x = axis.at(line.value);
        const said = `${part ? `${group.name}, ` : ""}${line.run.label}: ${write(line.value, figure.kind)}`;
        svg += `<g class="dot" data-said="${esc(said)}"><rect x="${left}" y="${mid - pitch / 2}" width="${w - left}" height="${pitch}" fill="transparent"/>`
          + `<line x1="${left}" x2="${x.toFixed(1)}" y1="${mid}" y2="${mid}" stroke="${line.run.colour}" stroke-width="${part ? 1.2 : 2}" opacity="${log ? 0.25 : 0.6}"/>`
          + marker(line.run, x, mid, part ? 4 : 5.5)
          + (pitch > 12 ? `<text class="${part ? "" : "strong"}" x="${(x + 11).toFixed(1)}" y="${mid + 4}">${write(line.value, figure.kind)}</text>` : "")
          + "</g>";
      });
      y += tall;
    });
    svg += `<line class="ax" x1="${left}" x2="${left}" y1="${top}" y2="${top + height}"/>`;
    const of = { by_size: ", by size class", by_queue: ", by queue" }[part] || "";
    host.innerHTML = `<svg viewBox="0 0 ${w} ${top + height + 26}" role="img" aria-label="${esc(figure.title + of)} of each run">${svg}</svg>`;
    const sense = { least: "Less is better.", most: "More is better." }[figure.best] || "";
    const others = part === "by_queue" && data.left_out > 0 ? ` ${data.left_out} smaller queues are not shown.` : "";
    const hollow = ones.some((run) => !run.complete) ? " Hollow: incomplete." : "";
    $("dots-said").textContent = `${figure.title}${of}. ${sense}${log ? " Logarithmic scale." : ""}${hollow}${others}`;
    host.querySelectorAll(".dot").forEach((dot) => {
      dot.addEventListener("pointermove", (event) => tell(esc(dot.dataset.said), event));
      dot.addEventListener("pointerleave", hush);
    });
  };

  // a figure over the number of GPUs, one line per policy
  const growth = () => {
    if (sizes.length < 2) return;
    $("growth-box").hidden = false;
    const host = $("growth"), figure = chosen(), w = width(host), h = paper ? 210 : 270;
    const log = $("log").checked && !$("log").disabled;
    const ones = shown().filter((run) => run.values[figure.key] !== null);
    $("growth-title").textContent = `${figure.title}, over the number of GPUs`;
    if (!ones.length) { host.innerHTML = '<p class="note">No run has this figure.</p>'; return; }
    const left = 78, bottom = h - 40, right = Math.min(150, w * 0.22);
    const up = scale(ones.map((run) => run.values[figure.key]), figure.kind, log, bottom, 12);
    const [least, most] = [sizes[0], sizes[sizes.length - 1]];
    const x = (gpus) => left + 14 + ((gpus - least) / (most - least)) * (w - left - right - 14);
    let svg = "", last = -Infinity;
    for (const value of up.ticks) {
      const y = up.at(value).toFixed(1);
      svg += `<line class="gl" x1="${left}" x2="${w - right + 10}" y1="${y}" y2="${y}"/><text x="${left - 8}" y="${Number(y) + 4}" text-anchor="end">${tick(value, figure.kind)}</text>`;
    }
    for (const gpus of sizes) {
      svg += `<line class="ax" x1="${x(gpus)}" x2="${x(gpus)}" y1="${bottom}" y2="${bottom + 4}"/>`;
      if (x(gpus) - last > 46) { svg += `<text x="${x(gpus)}" y="${bottom + 17}" text-anchor="middle">${grouped(gpus)}</text>`; last = x(gpus); }
    }
    svg += `<text x="${(left + w - right) / 2}" y="${h - 5}" text-anchor="middle">GPUs</text>`;
    const ends = [];
    for (const policy of policies) {
      const line = ones.filter((run) => run.policy === policy).sort((a, b) => a.gpus - b.gpus);
      if (!line.length) continue;
      const colour = policies.length > 1 ? line[0].colour : "var(--soft)";
      const points = line.map((run) => [x(run.gpus), up.at(run.values[figure.key])]);
      const joined = points.filter((_, at) => line[at].complete);  // half a run is no point of a trend
      svg += `<polyline fill="none" stroke="${colour}" stroke-width="2" points="${joined.map((p) => p.map((v) => v.toFixed(1)).join(",")).join(" ")}"/>`;
      line.forEach((run, at) => {
        svg += `<g class="dot" data-said="${esc(`${run.label}: ${write(run.values[figure.key], figure.kind)} with ${grouped(run.gpus)} GPUs`)}">${marker(run, ...points[at], 5)}</g>`;
      });
      ends.push({ policy, colour, x: points[points.length - 1][0], y: points[points.length - 1][1] });
    }
    ends.sort((a, b) => a.y - b.y);
    ends.forEach((end, at) => { end.y = Math.max(end.y, at ? ends[at - 1].y + 14 : 14); });  // names do not lie on each other
    const over = ends.length ? Math.max(0, ends[ends.length - 1].y - bottom) : 0;
    for (const end of ends) svg += `<text class="strong" x="${end.x + 11}" y="${end.y - over + 4}" style="fill:${end.colour}">${esc(cut(end.policy, 20))}</text>`;
    host.innerHTML = `<svg viewBox="0 0 ${w} ${h}" role="img" aria-label="${esc(figure.title)} over the number of GPUs, a line per policy">${svg}</svg>`;
    host.querySelectorAll(".dot").forEach((dot) => {
      dot.addEventListener("pointermove", (event) => tell(esc(dot.dataset.said), event));
      dot.addEventListener("pointerleave", hush);
    });
  };

  const compare = () => {
    const figure = chosen();
    $("part").disabled = !figure.parts;
    $("log").disabled = figure.kind === "share" || figure.kind === "index";
    dots();
    growth();
  };

  // -- over time --
  const timed = runs.filter((run) => (run.curves.time || []).length > 1);
  const begin = Math.min(...timed.map((run) => run.curves.time[0]));
  const end = Math.max(...timed.map((run) => run.curves.time[run.curves.time.length - 1]));
  let view = [begin, end];
  const upper = (times, at) => {  // how many are at or before
    let low = 0, high = times.length;
    while (low < high) { const mid = (low + high) >> 1; if (times[mid] <= at) low = mid + 1; else high = mid; }
    return low;
  };
  const valueAt = (times, values, at) => {
    const found = upper(times, at) - 1;
    return found < 0 || at > times[times.length - 1] ? null : values[found];
  };
  // A curve that holds each value until the next, between a and b: as it is, or where it has more points than the
  // screen has room, as time-weighted means of n stretches with their lows and highs.
  const steps = (times, values, a, b, n) => {
    const final = Math.min(b, times[times.length - 1]);
    let at = Math.max(0, upper(times, a) - 1);
    if (final <= a && times.length > 1 && times[times.length - 1] <= a) return [];
    const until = upper(times, final);
    if (until - at <= n) {
      const found = [];
      for (let k = at; k < until; k++) found.push({ x: Math.max(a, times[k]), mean: values[k], low: values[k], high: values[k] });
      if (found.length) found.push({ ...found[found.length - 1], x: final });
      return found;
    }
    const found = [], span = (b - a) / n;
    for (let k = 0; k < n; k++) {
      const from = Math.max(a + k * span, times[at]), to = Math.min(a + (k + 1) * span, final);
      if (to <= from) continue;
      let sum = 0, low = values[at], high = values[at], now = from;
      while (at + 1 < times.length && times[at + 1] < to) {
        sum += values[at] * (times[at + 1] - now);
        now = times[++at];
        low = Math.min(low, values[at]); high = Math.max(high, values[at]);
      }
      sum += values[at] * (to - now);
      found.push({ x: from, mean: sum / (to - from), low, high });
    }
    if (found.length) found.push({ ...found[found.length - 1], x: final });
    return found;
  };
  const path = (points, x, y) => points.reduce((d, p, at) => `${d}${at ? `H${x(p.x).toFixed(1)}V` : `M${x(p.x).toFixed(1)} `}${y(p.mean).toFixed(1)}`, "");
  const under = (points, x, y, floor) => (points.length ? `${path(points, x, y)}V${floor}H${x(points[0].x).toFixed(1)}Z` : "");
  const haze = (points, x, y) => {
    if (!points.some((p) => p.high > p.low)) return "";
    const up = points.reduce((d, p, at) => `${d}${at ? `H${x(p.x).toFixed(1)}V` : `M${x(p.x).toFixed(1)} `}${y(p.high).toFixed(1)}`, "");
    let back = "";
    for (let k = points.length - 1; k > 0; k--) back += `L${x(points[k].x).toFixed(1)} ${y(points[k - 1].low).toFixed(1)}H${x(points[k - 1].x).toFixed(1)}`;
    return `${up}${back}Z`;
  };

  const charts = [];  // of time; they share their view and their cursor
  const clock = (at) => time(at - begin);
  class Chart {
    // panels: {title, kind, height, most, lines: [{run, times, values, area, there, name}]}
    constructor(host, title, share, panels) {
      Object.assign(this, { host, title, share, panels });
      host.classList.add("time");
      charts.push(this);
    }

    draw() {
      const { host, panels } = this, w = width(host, this.share), left = 62, right = 12;
      const [a, b] = view;
      this.x = (at) => left + ((at - a) / (b - a || 1)) * (w - left - right);
      this.back = (px) => a + ((px - left) / (w - left - right)) * (b - a);
      let top = this.title ? 26 : 6, svg = this.title ? `<text class="strong title" x="4" y="16">${esc(cut(this.title, Math.floor(w / 8)))}</text>` : "";
      this.top = top;
      for (const panel of panels) {
        top += panel.title ? (panel === panels[0] ? 18 : 24) : 4;
        const floor = top + panel.height, most = panel.most(a, b);
        const y = (v) => floor - (v / most) * panel.height;
        if (panel.title) svg += `<text x="${left}" y="${top - 5}">${esc(panel.title)}</text>`;
        for (const value of ticks(0, most, panel.height / 36, panel.kind)) {
          svg += `<line class="gl" x1="${left}" x2="${w - right}" y1="${y(value)}" y2="${y(value)}"/><text x="${left - 7}" y="${y(value) + 4}" text-anchor="end">${tick(value, panel.kind)}</text>`;
        }
        const room = Math.floor((w - left - right) / 2);
        for (const line of panel.lines.filter((one) => one.run.shown)) {
          const points = steps(line.times, line.values, a, b, room);
          const { colour, dash } = line.run;
          if (line.area) svg += `<path class="area" d="${under(points, this.x, y, floor)}" fill="${colour}"/>`;
          if (line.area) svg += `<path class="haze" d="${haze(points, this.x, y)}" fill="${colour}"/>`;
          svg += line.there ? `<path class="there" d="${path(points, this.x, y)}"/>`
            : `<path class="curve" d="${path(points, this.x, y)}" stroke="${colour}" stroke-dasharray="${line.area ? "" : dash}"/>`;
        }
        svg += `<line class="ax" x1="${left}" x2="${w - right}" y1="${floor}" y2="${floor}"/>`;
        top = floor;
      }
      this.floor = top;
      for (const at of ticks(a - begin, b - begin, w / 120, "time")) {
        const x = this.x(at + begin);
        svg += `<line class="ax" x1="${x}" x2="${x}" y1="${top}" y2="${top + 4}"/><text x="${x}" y="${top + 17}" text-anchor="${x > w - 40 ? "end" : "middle"}">${time(at)}</text>`;
      }
      const name = this.title || panels[0].name;
      host.innerHTML = `<svg viewBox="0 0 ${w} ${top + 24}" tabindex="0" role="application" aria-roledescription="time chart" aria-label="${esc(name)}: arrow keys move the cursor, plus and minus zoom, 0 resets">`
        + `${svg}<rect class="brush" y="${this.top}" height="${top - this.top}" width="0"/><line class="cursor" y1="${this.top}" y2="${top}" visibility="hidden"/></svg>`;
      this.listen(host.firstChild, w);
    }

    listen(svg, w) {
      const place = (event) => {
        const box = svg.getBoundingClientRect();
        return Math.min(view[1], Math.max(view[0], this.back(((event.clientX - box.left) / box.width) * w)));
      };
      let from = null;
      const brush = svg.querySelector(".brush");
      svg.addEventListener("pointerdown", (event) => { if (!event.button) { from = place(event); svg.setPointerCapture(event.pointerId); } });
      svg.addEventListener("pointermove", (event) => {
        const at = place(event);
        point(at);
        tell(this.said(at), event);
        if (from !== null) {
          const [low, high] = [from, at].sort((p, q) => p - q).map(this.x);
          brush.setAttribute("x", low);
          brush.setAttribute("width", high - low);
        }
      });
      svg.addEventListener("pointerup", (event) => {
        const to = place(event), start = from;
        from = null;
        brush.setAttribute("width", 0);
        if (start !== null && Math.abs(this.x(to) - this.x(start)) > 6) look(Math.min(start, to), Math.max(start, to));
      });
      svg.addEventListener("pointercancel", () => { from = null; brush.setAttribute("width", 0); });
      svg.addEventListener("pointerleave", () => { hush(); if (from === null) point(null); });
      svg.addEventListener("dblclick", () => look(begin, end));
      svg.addEventListener("blur", () => point(null));
      svg.addEventListener("keydown", (event) => {
        const span = view[1] - view[0], at = cursor ?? (view[0] + view[1]) / 2;
        const jump = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
        if (jump) {
          const next = Math.min(view[1], Math.max(view[0], at + (jump * span) / 50));
          point(next);
          $("said").textContent = this.words(next);
          const box = svg.getBoundingClientRect();
          tell(this.said(next), { clientX: box.left + (this.x(next) / w) * box.width, clientY: box.top + box.height / 3 });
        } else if (event.key === "+" || event.key === "=") look(at - span / 4, at + span / 4);
        else if (event.key === "-") look(at - span, at + span);
        else if (event.key === "0" || event.key === "Escape") { look(begin, end); hush(); }
        else return;
        event.preventDefault();
        if (!jump) this.host.firstChild.focus();
      });
    }

    values(at) {
      return this.panels.flatMap((panel) => panel.lines.filter((line) => line.run.shown && !line.mute).map((line) => {
        const value = valueAt(line.times, line.values, at);
        return { panel, line, said: value === null ? "–" : panel.kind === "share" ? write(value, "share") : amount(whole(value * 100) / 100) };
      }));
    }

    said(at) {
      const found = this.values(at), head = `after ${clock(at)}`;
      if (this.title) return listed(head, found.map(({ line, said }) => [esc(line.name), said]));
      // a line per run, a column per panel
      const heads = this.panels.length > 1 ? `<tr><td></td>${this.panels.map((panel) => `<td>${esc(panel.short)}</td>`).join("")}</tr>` : "";
      const lines = shown().map((run) => {
        const cells = found.filter((one) => one.line.run === run).map((one) => `<td>${esc(one.said)}</td>`).join("");
        return cells && `<tr><td>${badge(run)} ${esc(run.label)}</td>${cells}</tr>`;
      });
      return `<b>${esc(head)}</b><table>${heads}${lines.join("")}</table>`;
    }

    words(at) {
      const part = (panel) => (this.panels.length > 1 && !this.title ? ` ${panel.short}` : "");
      return `after ${clock(at)}: ${this.values(at).map(({ panel, line, said }) => `${line.name} ${said}${part(panel)}`).join(", ")}`;
    }
  }

  let cursor = null;
  const point = (at) => {
    cursor = at;
    for (const chart of charts) {
      const line = chart.host.querySelector(".cursor");
      if (!line) continue;
      line.setAttribute("visibility", at === null ? "hidden" : "visible");
      if (at !== null) { line.setAttribute("x1", chart.x(at)); line.setAttribute("x2", chart.x(at)); }
    }
  };
  const look = (a, b) => {
    const least = (end - begin) / 1e5;
    a = Math.max(begin, a); b = Math.min(end, b);
    if (b - a < least) return;
    view = [a, b];
    $("reset").disabled = a <= begin && b >= end;
    charts.forEach((chart) => chart.draw());
    point(cursor !== null && cursor >= a && cursor <= b ? cursor : null);
  };

  const highest = (lists) => lists.reduce((most, list) => list.reduce((top, v) => Math.max(top, v), most), 0) || 1;
  // the highest of what is in view, so that a zoom shows the details of a quiet time too
  const inView = (lines, whole) => (a, b) => {
    if (a <= begin && b >= end) return whole * 1.06;
    let most = 0;
    for (const line of lines) {
      if (!line.run.shown) continue;
      const to = upper(line.times, b);
      for (let k = Math.max(0, upper(line.times, a) - 1); k < to; k++) most = Math.max(most, line.values[k]);
    }
    return (most || whole) * 1.06;
  };
  const lineOf = (run, column, more = {}) => ({ run, times: run.curves.time, values: run.curves[column], name: run.label, ...more });
  const panel = (name, kind, height, lines, more = {}) => ({ name, kind, height, lines, most: inView(lines, highest(lines.map((line) => line.values))), ...more });

  const layout = () => {
    charts.length = 0;
    const host = $("gpus"), over = $("layout").value === "over";
    const many = timed.filter((run) => run.shown).length, across = many > 4 ? 3 : Math.min(many, 2);
    host.className = `grid${over ? " over" : ["", " one", "", " many"][across]}`;
    host.innerHTML = "";
    const box = () => host.appendChild(document.createElement("div"));
    const [there, wanted] = [highest(timed.map((run) => run.curves.gpus)), highest(timed.map((run) => run.curves.wanted))];
    if (over) {
      new Chart(box(), "", 1, [
        panel("GPUs in use", "count", 210, [
          ...timed.filter((run, at) => timed.findIndex((one) => one.gpus === run.gpus && one.shown) === at).map((run) => lineOf(run, "gpus", { there: true, mute: true })),
          ...timed.map((run) => lineOf(run, "used")),
        ], { title: "GPUs in use; dashed grey: there", short: "in use" }),
        panel("GPUs waited for", "count", 130, timed.map((run) => lineOf(run, "wanted")), { title: "GPUs waited for", short: "waited for" }),
      ]);
    } else {
      for (const run of timed) {
        if (!run.shown) continue;
        const use = [lineOf(run, "used", { area: true, name: "in use" }), lineOf(run, "gpus", { there: true, name: "there" })];
        const want = [lineOf(run, "wanted", { area: true, name: "waited for" })];
        // the same scale in all charts: they are there to be compared
        new Chart(box(), run.label, across, [
          { ...panel("in use", "count", 120, use), title: "in use; dashed: there", most: () => there * 1.06 },
          { ...panel("waited for", "count", 74, want, { title: "waited for" }), most: (a, b) => (a <= begin && b >= end ? wanted * 1.06 : inView(timed.filter((one) => one.shown).map((one) => lineOf(one, "wanted")), wanted)(a, b)) },
        ]);
      }
    }
    new Chart($("waiting"), "", 2, [panel("Jobs waiting", "count", 190, timed.map((run) => lineOf(run, "waiting")))]);
    const spots = timed.filter((run) => run.broken.time.length > 1).map((run) => ({ run, times: run.broken.time, values: run.broken.part, name: run.label }));
    if (spots.length) new Chart($("broken"), "", 2, [panel("Fragmentation", "share", 190, spots)]);
    else $("broken").innerHTML = '<p class="note">No samples.</p>';
    charts.forEach((chart) => chart.draw());
  };

  // -- the table of figures --
  const sort = (button) => {
    const head = button.closest("th"), row = head.parentElement, at = [...row.children].indexOf(head);
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of row.children) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = $("figures").tBodies[0];
    const key = (line) => (line.cells[at].dataset.v === "" ? null : Number(line.cells[at].dataset.v));
    const lines = [...body.rows].sort((p, q) => {
      const [a, b] = [key(p), key(q)];
      if (a === null || b === null) return (a === null) - (b === null);  // those without a figure come last
      return down ? b - a : a - b;
    });
    body.append(...lines);
  };

  // -- start --
  $("figure").innerHTML = data.figures.map((one) => `<option value="${one.key}">${esc(one.title)}</option>`).join("");
  $("figure").value = "wait.p95";
  if (!data.queues.length) $("part").querySelector('[value="by_queue"]').remove();
  if (!data.sizes.length) $("part").querySelector('[value="by_size"]').remove();
  document.querySelectorAll(".drawn").forEach((section) => { section.hidden = !runs.length; });
  const redraw = () => { if (runs.length) compare(); if (timed.length) charts.forEach((chart) => chart.draw()); };
  if (runs.length) {
    $("legend").innerHTML = runs.map((run) => `<button type="button" aria-pressed="true" data-run="${run.at}">${badge(run)} ${esc(run.label)}</button>`).join("");
    $("legend").addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      const run = runs[button.dataset.run];
      if (run.shown && shown().length === 1) return;  // an empty plot tells nothing
      run.shown = !run.shown;
      button.setAttribute("aria-pressed", String(run.shown));
      compare();
      if (timed.length) layout();
    });
    if (runs.length < 2) $("legend").hidden = true;
    for (const id of ["figure", "part", "log"]) $(id).addEventListener("change", compare);
    compare();
  }
  if (timed.length) {
    if (timed.length < 2) $("layout").closest("label").hidden = true;
    $("layout").addEventListener("change", layout);
    $("reset").addEventListener("click", () => look(begin, end));
    layout();
  } else $("h-time").closest("section").hidden = true;
  document.querySelectorAll("button.sort").forEach((button) => button.addEventListener("click", () => sort(button)));
  let late = 0;
  addEventListener("resize", () => { cancelAnimationFrame(late); late = requestAnimationFrame(redraw); });
  addEventListener("beforeprint", () => { paper = true; hush(); redraw(); });
  addEventListener("afterprint", () => { paper = false; redraw(); });
  document.documentElement.dataset.ready = "yes";
})();
