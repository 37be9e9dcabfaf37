"use strict";
// Two things: a step marked in one figure is marked in all, and samples can be filtered. What a model wrote is only
// ever set as text.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const make = (tag, className = "", text = "") => {
    const element = document.createElement(tag);
    element.className = className;
    element.textContent = text;
    return element;
  };
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  // --- the steps in view: one that is hovered, and a range that is held (of one step after a click) ---

  let hovered = null;
  let held = null;
  const listeners = [];
  const hover = (step) => {
    hovered = step;
    listeners.forEach((listen) => listen());
  };
  const hold = (range) => {
    held = range;
    hover(null);
    if (browser) browser.stepChanged();
  };
  const named = ([from, to]) => (from === to ? `step ${from}` : `steps ${from}–${to}`);

  // --- figures ---

  const shape = (svg, tag, className) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    element.setAttribute("class", className);
    return svg.appendChild(element);
  };

  const follow = (figure) => {
    const svg = figure.querySelector("svg");
    const [left, right, top, bottom] = figure.dataset.frame.split(" ").map(Number);
    const last = Number(figure.dataset.last);
    const { width, height } = svg.viewBox.baseVal;
    const range = shape(svg, "rect", "range");
    const mark = shape(svg, "line", "mark");
    const x = (step) => width * (left + ((right - left) * step) / last);
    const place = (element, attributes) => {
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    };
    place(range, { y: height * top, height: height * (bottom - top) });
    place(mark, { y1: height * top, y2: height * bottom });

    const show = () => {
      const step = hovered ?? (held && held[0] === held[1] ? held[0] : null);
      const marked = step !== null && step <= last;
      mark.style.display = marked ? "" : "none";
      if (marked) place(mark, { x1: x(step), x2: x(step) });
      const ranged = held !== null && held[0] < held[1] && held[0] <= last;
      range.style.display = ranged ? "" : "none";
      if (ranged) place(range, { x: x(held[0]), width: x(Math.min(held[1], last)) - x(held[0]) });
    };
    listeners.push(show);
    show();

    let from = null;
    const stepAt = (event) => {
      const box = svg.getBoundingClientRect();
      const share = (event.clientX - box.left) / box.width;
      return clamp(Math.round(((share - left) / (right - left)) * last), 0, last);
    };
    svg.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      from = stepAt(event);
      svg.setPointerCapture(event.pointerId);
    });
    svg.addEventListener("pointermove", (event) => {
      const step = stepAt(event);
      if (from !== null && step !== from) {
        held = [Math.min(from, step), Math.max(from, step)];
      }
      hover(step);
    });
    svg.addEventListener("pointerup", (event) => {
      if (from === null) return;
      const step = stepAt(event);
      const again = held !== null && held[0] === held[1] && held[0] === step && from === step;
      hold(again ? null : [Math.min(from, step), Math.max(from, step)]);
      from = null;
    });
    svg.addEventListener("pointercancel", () => {
      from = null;
      hover(null);
    });
    svg.addEventListener("pointerleave", () => hover(null));

    svg.setAttribute("role", "img");
    svg.setAttribute("tabindex", "0");
    svg.setAttribute("aria-label", `${figure.dataset.words} Arrow keys move the marked step, with shift they mark a range.`);
    svg.addEventListener("keydown", (event) => {
      const [start, end] = held ?? [null, null];
      const moved = {
        ArrowLeft: () => (end === null ? last : end - 1),
        ArrowRight: () => (end === null ? 0 : end + 1),
        Home: () => 0,
        End: () => last,
      }[event.key];
      if (!moved) return;
      event.preventDefault();
      const step = clamp(moved(), 0, last);
      hold(event.shiftKey && start !== null ? [Math.min(start, step), step] : [step, step]);
    });
    figure.append(saving(figure, svg));
  };

  // --- a figure as a file: the drawing as it looks here, and what it shows ---

  const saving = (figure, svg) => {
    const title = figure.querySelector("h3").textContent;
    const name = title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
    const line = make("p", "save", "save as");
    const offer = (ending, content) => {
      const button = make("button", "", ending.toUpperCase());
      button.type = "button";
      button.setAttribute("aria-label", `save ${title} as ${ending.toUpperCase()}`);
      button.addEventListener("click", async () => {
        const link = make("a");
        link.href = URL.createObjectURL(await content());
        link.download = `${name}.${ending}`;
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      });
      line.append(button);
    };
    offer("svg", () => drawn(svg));
    offer("png", () => pixels(svg));
    offer("csv", () => new Blob([figure.dataset.csv], { type: "text/csv" }));
    return line;
  };

  const drawn = (svg) => {
    const copy = svg.cloneNode(true);
    copy.querySelectorAll(".mark, .range").forEach((each) => each.remove());
    const { width, height } = svg.viewBox.baseVal;
    const ground = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [key, value] of Object.entries({ width, height, fill: "var(--surface)" })) ground.setAttribute(key, value);
    copy.prepend(ground);
    const style = getComputedStyle(document.documentElement);
    const text = new XMLSerializer().serializeToString(copy);
    const coloured = text.replace(/var\((--[a-z]+)\)/g, (_, variable) => style.getPropertyValue(variable).trim());
    return new Blob([coloured], { type: "image/svg+xml" });
  };

  const pixels = async (svg) => {
    const image = new Image();
    image.src = URL.createObjectURL(drawn(svg));
    await image.decode();
    URL.revokeObjectURL(image.src);
    const canvas = document.createElement("canvas");
    const { width, height } = svg.viewBox.baseVal;
    [canvas.width, canvas.height] = [3 * width, 3 * height];
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  };

  // --- the bar: what was measured at the step in view ---

  const reading = (name, [steps, values], step) => {
    let index = steps.findIndex((each) => each > step) - 1;
    if (index === -2) index = steps.length - 1;
    if (index < 0) return null;
    const value = values[index];
    return `${name} ${name === "pass@1" ? `${(100 * value).toFixed(1)} %` : Number(value.toPrecision(3))}`;
  };

  const showBar = () => {
    const range = hovered !== null ? [hovered, hovered] : held;
    at("bar").hidden = range === null;
    if (range === null) return;
    at("place").textContent = named(range);
    at("clear").hidden = held === null;
    at("readings").replaceChildren(
      ...data.runs.slice(0, 2).map((run) => {
        const found = Object.entries(run.values).map(([name, curve]) => reading(name, curve, range[1]));
        const line = make("span", "reading", found.filter(Boolean).join(" · "));
        if (data.runs.length > 1) line.prepend(make("b", "", `${run.name} `));
        return line;
      }),
    );
    at("jump").textContent = browser && held ? browser.counted() : "";
  };

  // --- samples ---

  const MEANING = {
    polarity: ["contracts entropy", "expands it", "advantage × sensitivity: what learning from the token does to entropy"],
    entropy: ["0", "", "entropy of the distribution that the token was drawn from, in nats"],
    surprisal: ["0", "", "−ln p of the token, in nats"],
  };
  const PAGE = 12;

  const startBrowser = () => {
    const ALL = "all";
    const samples = data.runs.flatMap((run) => run.samples);
    const measures = Object.keys(MEANING).filter((name) => name in data.scales);
    const counts = (field) => {
      const found = new Map();
      for (const sample of samples) found.set(sample[field], (found.get(sample[field]) ?? 0) + 1);
      return found;
    };
    const option = (value, text) => {
      const element = make("option", "", text);
      element.value = value;
      return element;
    };
    const fill = (select, field) => {
      const found = [...counts(field)].sort((a, b) => b[1] - a[1]);
      select.replaceChildren(option(ALL, `all (${samples.length})`));
      found.forEach(([value, count], index) => select.append(option(String(index), `${value} (${count})`)));
      return found.map(([value]) => value);
    };
    const outcomes = fill(at("verdict"), "outcome");
    const splits = fill(at("split"), "split");
    const steps = [...counts("step").keys()].sort((a, b) => a - b);
    at("step").replaceChildren(option(ALL, "all"), ...steps.map((step) => option(String(step), String(step))));
    const brushed = option("range", "");
    at("measure").replaceChildren(...measures.map((name) => option(name, name)), option("none", "none"));
    at("measures").hidden = measures.length === 0;

    const nearest = (own, step) =>
      own.reduce((best, each) => (Math.abs(each - step) < Math.abs(best - step) ? each : best), own[0]);
    const searched = (run, sample) =>
      [...run.tasks[sample.task], sample.text ?? sample.tokens.text.join("")].join("\n").toLowerCase();
    // the samples of a run that pass the filters; of one step held, those of the step nearest to it that has any
    const chosen = (run) => {
      const outcome = outcomes[at("verdict").value];
      const split = splits[at("split").value];
      const sought = at("search").value.toLowerCase();
      const own = run.samples.filter(
        (sample) =>
          (outcome === undefined || sample.outcome === outcome) &&
          (split === undefined || sample.split === split) &&
          (sought === "" || searched(run, sample).includes(sought)),
      );
      if (held === null || own.length === 0) return own;
      const step = nearest([...new Set(own.map((sample) => sample.step))], held[0]);
      const [from, to] = held[0] === held[1] ? [step, step] : held;
      return own.filter((sample) => from <= sample.step && sample.step <= to);
    };

    const card = (run, sample) => {
      const [task, prompt] = run.tasks[sample.task];
      const element = make("article", "card");
      const head = make("p");
      const verdict = make("b", sample.outcome === "passed" ? "passed" : "failed", sample.outcome);
      const step = make("button", "step", `step ${sample.step}`);
      step.type = "button";
      step.addEventListener("click", () => hold([sample.step, sample.step]));
      head.append(verdict, step, make("small", "", ` ${sample.split}`));
      const about = make("details");
      about.append(make("summary", "", task), make("pre", "prompt", prompt));
      element.append(head, about, sample.tokens ? tokens(sample) : make("pre", "", sample.text));
      element.addEventListener("pointerenter", () => hover(sample.step));
      element.addEventListener("pointerleave", () => hover(null));
      return element;
    };

    const tokens = (sample) => {
      const measure = at("measure").value;
      const values = sample.tokens[measure];
      const block = make("div", "tokens");
      const text = make("pre");
      const about = make("p", "about", sample.advantage === null ? "" : `advantage ${sample.advantage}`);
      const spans = sample.tokens.text.map((piece, index) => {
        const span = make("span", piece === "" ? "token void" : /^\s*\n/.test(piece) ? "token newline" : "token", piece);
        if (values) {
          const share = Math.sqrt(Math.min(1, Math.abs(values[index]) / data.scales[measure]));
          const colour = measure !== "polarity" ? "purple" : values[index] < 0 ? "blue" : "orange";
          span.style.background = `color-mix(in srgb, var(--${colour}) ${Math.round(55 * share)}%, transparent)`;
        }
        span.dataset.index = index;
        return span;
      });
      text.append(...spans);
      if (sample.cut) text.append(make("span", "cut", `\n[${sample.cut} more tokens]`));
      const tell = (event) => {
        const index = event.target.dataset.index;
        if (index === undefined) return;
        const numbers = Object.keys(MEANING)
          .filter((name) => sample.tokens[name])
          .map((name) => `${name} ${sample.tokens[name][index]}`);
        about.textContent = `${JSON.stringify(sample.tokens.text[index])} · ${numbers.join(" · ")}`;
      };
      text.addEventListener("pointerover", tell);
      text.addEventListener("click", tell);
      block.append(text, about);
      return block;
    };

    const column = (initial) => {
      const element = make("div", "column");
      const head = make("p", "head");
      const list = make("div", "cards");
      const more = make("button", "more", "show more");
      more.type = "button";
      let run = data.runs[initial];
      let shown = PAGE;
      if (data.runs.length > 1) {
        const select = make("select");
        select.setAttribute("aria-label", "run");
        data.runs.forEach((each, index) => select.append(option(String(index), each.name)));
        select.value = String(initial);
        select.addEventListener("change", () => {
          run = data.runs[select.value];
          draw();
        });
        head.append(select);
      }
      const count = head.appendChild(make("small"));
      const draw = () => {
        const found = chosen(run);
        count.textContent = ` ${found.length} of ${run.samples.length} samples` +
          (run.samples.length < run.of ? `, chosen from the run's ${run.of}` : "");
        list.replaceChildren(...found.slice(0, shown).map((sample) => card(run, sample)));
        more.hidden = found.length <= shown;
      };
      more.addEventListener("click", () => {
        shown += PAGE;
        draw();
      });
      element.append(head, list, more);
      return { element, draw, reset: () => ((shown = PAGE), draw()) };
    };
    const columns = data.runs.slice(0, 2).map((_, index) => column(index));
    at("columns").replaceChildren(...columns.map((each) => each.element));
    const redraw = () => columns.forEach((each) => each.reset());

    const legend = () => {
      const measure = at("measure").value;
      at("legend").hidden = !(measure in data.scales);
      if (at("legend").hidden) return;
      const [low, high, meaning] = MEANING[measure];
      const scale = data.scales[measure];
      at("low").textContent = measure === "polarity" ? `${low} ${-scale}` : low;
      at("high").textContent = measure === "polarity" ? `+${scale} ${high}` : `${scale} and more`;
      at("meaning").textContent = meaning;
      at("legend").className = `caption ${measure}`;
    };
    const stepChanged = () => {
      brushed.remove();
      if (held !== null && (held[0] < held[1] || !steps.includes(held[0]))) {
        brushed.textContent = held[0] < held[1] ? `${held[0]}–${held[1]}` : `near ${held[0]}`;
        at("step").append(brushed);
        at("step").value = "range";
      } else {
        at("step").value = held === null ? ALL : String(held[0]);
      }
      redraw();
    };
    const move = (by) => {
      const place = held === null ? (by > 0 ? -1 : steps.length) : steps.indexOf(nearest(steps, held[0]));
      const step = steps[clamp(place + by, 0, steps.length - 1)];
      hold([step, step]);
    };
    at("step").addEventListener("change", () => {
      const value = at("step").value;
      if (value !== "range") hold(value === ALL ? null : [Number(value), Number(value)]);
    });
    at("before").addEventListener("click", () => move(-1));
    at("after").addEventListener("click", () => move(1));
    at("verdict").addEventListener("change", redraw);
    at("split").addEventListener("change", redraw);
    at("search").addEventListener("input", redraw);
    at("measure").addEventListener("change", () => {
      legend();
      columns.forEach((each) => each.draw());
    });
    at("filters").addEventListener("submit", (event) => event.preventDefault());
    const recorded = samples.find((sample) => sample.tokens);
    if (recorded) at("split").value = String(splits.indexOf(recorded.split));
    legend();
    redraw();
    at("browser").hidden = false;
    const counted = () => {
      const count = data.runs.slice(0, 2).reduce((sum, run) => sum + chosen(run).length, 0);
      return count === 1 ? "1 sample" : `${count} samples`;
    };
    return { stepChanged, counted };
  };

  const browser = at("browser") && data.runs.some((run) => run.samples.length) ? startBrowser() : null;
  document.querySelectorAll("figure[data-frame]").forEach(follow);
  listeners.push(showBar);
  document.querySelectorAll("a[data-steps]").forEach((link) => {
    link.addEventListener("click", () => hold(link.dataset.steps.split(" ").map(Number)));
  });
  at("clear").addEventListener("click", () => hold(null));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hold(null);
  });
})();
