// Draws the plots of a page from the data in it. Drag across a plot to zoom, double-click to go
// back, click on its title to see it large.
(() => {
  const plots = JSON.parse(document.getElementById("plots").textContent);
  const colour = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();

  // Plots of a group have one scale, so that phases can be compared by eye.
  const ranges = {};
  for (const { group, log, lines } of plots) {
    const range = (ranges[group] ??= [Infinity, -Infinity]);
    for (const { values } of lines)
      for (const value of values)
        if (value !== null && (!log || value > 0)) {
          range[0] = Math.min(range[0], value);
          range[1] = Math.max(range[1], value);
        }
  }

  function yRange({ group, log }) {
    const [low, high] = ranges[group];
    if (low > high) return log ? [1, 10] : [0, 1];
    return log ? uPlot.rangeLog(low, high, 10, false) : [0, high * 1.08 || 1];
  }

  const short = (value) => {
    if (value === null || value === undefined) return "–";
    if (Math.abs(value) >= 1e4) return Number(value.toPrecision(3)).toLocaleString("en");
    return String(Number(value.toPrecision(3)));
  };

  function seriesOf(line, log) {
    const points = { show: line.points, size: line.alone ? 9 : 6, fill: line.colour };
    return {
      label: line.label,
      stroke: line.colour,
      width: line.alone ? 0 : 1.5,
      dash: line.dashed ? [4, 3] : undefined,
      paths: line.alone ? () => null : undefined,
      points: line.alone ? { ...points, fill: "transparent", stroke: line.colour, width: 2 } : points,
      spanGaps: true,
      value: (_, value) => short(value),
    };
  }

  // Between the decades a small plot has no room for lines.
  const decades = (_, splits) =>
    splits.map((split) => (Math.abs(Math.log10(split) % 1) < 1e-6 ? split : null));

  function draw(place, plot, height, large) {
    const axis = {
      stroke: colour("--muted"),
      grid: { stroke: colour("--line"), width: 1 },
      ticks: { show: false },
      font: "11px system-ui, sans-serif",
    };
    const ticks = (_, values) => values.map((value) => (value === null ? "" : short(value)));
    const width = () => Math.max(place.clientWidth, 120);
    const chart = new uPlot(
      {
        width: width(),
        height,
        padding: [6, 10, 0, 0],
        legend: { show: large, live: true },
        cursor: { sync: { key: plot.x_label }, drag: { x: true, y: false } },
        scales: { x: { time: false }, y: { distr: plot.log ? 3 : 1, range: () => yRange(plot) } },
        series: [
          { label: plot.x_label, value: (_, value) => short(value) },
          ...plot.lines.map((line) => seriesOf(line, plot.log)),
        ],
        axes: [
          { ...axis, values: ticks, size: 22, label: large ? plot.x_label : undefined, labelSize: 16, labelFont: axis.font, space: 45 },
          { ...axis, values: ticks, size: 46, space: 22, ...(plot.log && !large && { grid: { ...axis.grid, filter: decades } }) },
        ],
      },
      [plot.x, ...plot.lines.map(({ values }) => values)],
      place,
    );
    new ResizeObserver(() => chart.setSize({ width: width(), height })).observe(place);
    return chart;
  }

  for (const figure of document.querySelectorAll("figure[data-plot]")) {
    const plot = plots[Number(figure.dataset.plot)];
    const place = figure.appendChild(document.createElement("div"));
    place.className = "drawing";
    const large = "large" in figure.dataset;
    draw(place, plot, large ? 230 : 112, large);
    figure.querySelector("button").addEventListener("click", () => {
      const dialog = document.getElementById("one");
      dialog.querySelector("h2").textContent = plot.title;
      const stage = dialog.querySelector("div");
      stage.replaceChildren();
      dialog.showModal();
      draw(stage, plot, Math.min(innerHeight * 0.6, 460), true);
    });
  }

  for (const button of document.querySelectorAll("button[data-copy]"))
    button.addEventListener("click", () => {
      // A selection, because a page opened from a disk may have no other way to the clipboard.
      getSelection().selectAllChildren(document.getElementById(button.dataset.copy));
      button.textContent = document.execCommand("copy") ? "Copied" : "Selected: press Ctrl+C";
    });
})();
