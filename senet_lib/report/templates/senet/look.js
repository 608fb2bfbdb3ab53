/* Looking without a kernel: a class, an image and networks are chosen, and their maps, probabilities
   and gates drawn from the bytes that lie in the page. It follows page.js and uses its `make`. */
(() => {
  "use strict";

  const OPACITY = 0.7, NEIGHBOURS = [["upper", "middle", "lower"], ["left", "centre", "right"]];
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const percent = (share) => (share > 0.999 ? "over 99.9 %" : `${(100 * share).toFixed(1)} %`);

  function picture(size, alt, colour) {
    const canvas = make("canvas", { width: size, height: size, role: "img", ariaLabel: alt });
    canvas.setAttribute("role", "img");
    const context = canvas.getContext("2d"), pixels = context.createImageData(size, size);
    for (let place = 0; place < size * size; place++) {
      pixels.data.set([...colour(place), 255], 4 * place);
    }
    context.putImageData(pixels, 0, 0);
    return canvas;
  }

  function brightest(map, size) {
    const rows = [0, 0, 0], columns = [0, 0, 0];
    map.forEach((value, place) => {
      rows[Math.floor(3 * Math.floor(place / size) / size)] += value ** 2;
      columns[Math.floor(3 * (place % size) / size)] += value ** 2;
    });
    const [row, column] = [rows, columns].map((sums, k) => NEIGHBOURS[k][sums.indexOf(Math.max(...sums))]);
    return row === "middle" && column === "centre" ? column : `${row} ${column}`;
  }

  function curve(values, mean, layer) {
    const across = (k) => (200 * k / Math.max(values.length - 1, 1)).toFixed(1);
    const scale = (v) => layer.low + (layer.high - layer.low) * v / 255;
    const least = Math.min(0, layer.low), most = Math.max(1, layer.high);
    const down = (v) => (42 - 40 * (scale(v) - least) / (most - least)).toFixed(1);
    const line = (numbers, look) => `<polyline ${look} points="${
      [...numbers].map((v, k) => `${across(k)},${down(v)}`).join(" ")}"/>`;
    const away = Math.sqrt(values.reduce((sum, v, k) => sum + (scale(v) - scale(mean[k])) ** 2, 0) / values.length);
    const ends = [Math.min(...values), Math.max(...values)].map((v) => scale(v).toFixed(2)).join(" to ");
    const drawing = make("div", { className: "curve" });
    drawing.innerHTML = `<svg viewBox="0 0 200 44" aria-hidden="true" preserveAspectRatio="none">${
      line(mean, 'class="mean"')}${line(values, "")}</svg>`;
    return make("div", {}, drawing, make("small", {},
      `${layer.name}: ${layer.channels} gates, ${ends}; ${away.toFixed(3)} from their means (RMS)`));
  }

  function open(box) {
    const data = JSON.parse(box.querySelector("script").textContent);
    const { size, classes, labels } = data;
    const area = size * size, images = bytes(data.images), colours = bytes(data.colours);
    const networks = data.networks.map((network) => ({
      ...network,
      maps: bytes(network.maps),
      gates: network.gates.map((layer) => {
        const values = bytes(layer.values), mean = new Float64Array(layer.channels);
        values.forEach((v, k) => { mean[k % layer.channels] += v / labels.length; });
        return { ...layer, values, mean };
      }),
    }));
    const rgb = (i) => (place) => images.subarray(3 * (area * i + place), 3 * (area * i + place) + 3);
    const grey = (i, place) => {
      const [r, g, b] = rgb(i)(place);
      return 0.299 * r + 0.587 * g + 0.114 * b;
    };
    const heat = (value) => colours.subarray(3 * value, 3 * value + 3);
    const said = (network, i) => network.said[i];

    const known = [...new Set(labels)];
    const classChoice = make("select", {}, ...known.map((k) => make("option", { value: k }, classes[k])));
    const view = make("select", {}, ...["map over the grey image", "map alone"].map((text) => make("option", {}, text)));
    const group = (legend, ...inside) => make("fieldset", {}, make("legend", {}, legend), ...inside);
    const ticks = networks.map((network, k) => make("input", { type: "checkbox", checked: k < 4 }));
    const strip = make("div", { className: "strip-of-images" });
    const status = make("p", {});
    status.setAttribute("role", "status");
    const cards = make("div", { className: "cases" });
    let chosen = labels.indexOf(known[0]);

    function verdict(network, i) {
      const best = said(network, i);
      return `${classes[best]}, ${percent(network.shares[i][best])}, ${best === labels[i] ? "right" : "wrong"}`;
    }

    function card(network, i) {
      const map = network.maps.subarray(area * i, area * (i + 1)), share = network.shares[i];
      const over = view.selectedIndex === 0;
      const colour = (place) => {
        const mix = over ? OPACITY * map[place] / 255 : 1;
        return [...heat(map[place])].map((c) => (1 - mix) * (over ? grey(i, place) : 0) + mix * c);
      };
      const where = network.blank[i] ? "zero everywhere" : `strongest at the ${brightest(map, size)}`;
      const best = said(network, i), others = share.map((_, k) => k).filter((k) => k !== best);
      const order = [best, ...others.sort((a, b) => share[b] - share[a]).slice(0, 2)];
      const list = make("ol", { className: "shares" }, ...order.map((k) => make("li", {},
        make("span", {}, classes[k]), make("span", {}, percent(share[k])),
        make("meter", { value: share[k], ariaLabel: `${classes[k]}, probability` }))));
      return make("figure", {},
        picture(size, `Map of ${network.name} for ${classes[said(network, i)]}: ${where}`, colour),
        make("figcaption", {}, make("strong", {}, network.name), `: ${verdict(network, i)}. The map is ${where}.`,
          list, ...network.gates.map((layer) => curve(
            layer.values.subarray(layer.channels * i, layer.channels * (i + 1)), layer.mean, layer))));
    }

    function draw() {
      const shown = networks.filter((_, k) => ticks[k].checked);
      const label = `${classes[labels[chosen]]}, image ${data.indices[chosen]}`;
      cards.replaceChildren(
        make("figure", {}, picture(size, label, rgb(chosen)), make("figcaption", {}, make("strong", {}, label))),
        ...shown.map((network) => card(network, chosen)));
      status.textContent = `${label}. ${shown.map((n) => `${n.name}: ${verdict(n, chosen)}`).join("; ") || "No network is chosen"}.`;
    }

    function offer() {
      const offered = labels.map((_, i) => i).filter((i) => labels[i] === Number(classChoice.value));
      chosen = offered[0];
      strip.replaceChildren(...offered.map((i) => {
        const right = networks.filter((network) => said(network, i) === labels[i]).length;
        const radio = make("input", { type: "radio", name: "look-image", checked: i === chosen });
        radio.addEventListener("change", () => { chosen = i; draw(); });
        const text = `${right} of ${networks.length} right`;
        return make("label", {}, radio, picture(size, `image ${data.indices[i]},`, rgb(i)), make("span", {}, text));
      }));
      draw();
    }

    classChoice.addEventListener("change", offer);
    for (const control of [view, ...ticks]) control.addEventListener("change", draw);
    box.replaceChildren(
      make("div", { className: "filter" }, make("label", {}, "Class", classChoice), make("label", {}, "Shown", view)),
      group("Image", strip),
      group("Networks", ...networks.map((network, k) => make("label", {}, ticks[k], network.name))),
      status, cards);
    offer();
  }

  document.addEventListener("DOMContentLoaded", () => {
    for (const box of document.querySelectorAll(".look")) open(box);
  });
})();
