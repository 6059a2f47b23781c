// Makes the figure of the first convolution live: readers move the window over the image.
const KERNELS = {
  "vertical edges": [-1, 0, 1, -1, 0, 1, -1, 0, 1],
  "horizontal edges": [-1, -1, -1, 0, 0, 0, 1, 1, 1],
  "blur": Array(9).fill(1 / 9),
};
const place = document.getElementById("live");
const pixels = place.dataset.pixels.split(" ").map(Number);  // 32 x 32, row by row
let x = Number(place.dataset.x), y = Number(place.dataset.y);  // the window's upper left pixel
let kernel = KERNELS["vertical edges"];

const choices = Object.keys(KERNELS).map((name, n) =>
  `<label><input type="radio" name="kernel" value="${name}" ${n ? "" : "checked"}> ${name}</label>`);
const part = (name, inside) => `<figure><figcaption>${name}</figcaption>${inside}</figure>`;
const table = (name) => part(name, `<table data-part="${name}"><tbody>` +
  ("<tr>" + "<td></td>".repeat(3) + "</tr>").repeat(3) + "</tbody></table>");
place.className = "live";
place.innerHTML = `
  <p>Drag the window over the image, or press the arrow keys when the image has the focus.</p>
  <fieldset><legend>Kernel</legend>${choices.join("")}</fieldset>
  <div class="parts">
    ${part("image", `<canvas id="image" width="320" height="320" tabindex="0" role="application"
      aria-label="Gray image of a ship with a window of 3 x 3 pixels. The arrow keys move the window."
      aria-describedby="sum"></canvas>`)}
    ${table("window")}${table("kernel")}${table("products")}
    ${part("output", `<canvas id="output" width="300" height="300" role="img"
      aria-label="The sums at all 30 x 30 places, with a frame around the present one"></canvas>`)}
  </div>
  <p id="sum" role="status"></p>`;
const image = document.getElementById("image"), output = document.getElementById("output");
place.closest(".cell").querySelector("img").style.display = "none";  // the figure that stands still

const places = [0, 1, 2].flatMap((row) => [0, 1, 2].map((column) => [row, column]));
const windowAt = (y, x) => places.map(([row, column]) => pixels[(y + row) * 32 + x + column]);
const times = (numbers) => numbers.map((number, n) => number * kernel[n]);
const sum = (numbers) => numbers.reduce((total, number) => total + number);
const text = (number) => String(Number(number.toFixed(1)));

function color(value, limit) {  // red is positive, blue is negative, and white is 0
  if (Math.min(...kernel) >= 0) return `rgb(${value} ${value} ${value})`;
  const share = Math.min(Math.abs(value) / limit, 1), end = value > 0 ? [178, 24, 43] : [33, 102, 172];
  return `rgb(${end.map((part) => 255 + share * (part - 255)).join(" ")})`;
}

function fill(name, numbers, shade) {
  place.querySelectorAll(`[data-part=${name}] td`).forEach((cell, n) => {
    cell.textContent = name === "kernel" && numbers[n] % 1 ? "1/9" : text(numbers[n]);
    cell.style.boxShadow = `inset 0 -0.4em ${shade(numbers[n])}`;
  });
}

function paint(canvas, size, side, shade) {  // the pixels, then a frame around the present place
  const pen = canvas.getContext("2d");
  for (let n = 0; n < size * size; n++) {
    pen.fillStyle = shade(Math.floor(n / size), n % size);
    pen.fillRect(10 * (n % size), 10 * Math.floor(n / size), 10, 10);
  }
  pen.strokeStyle = "#ff800e";
  pen.lineWidth = 4;
  pen.strokeRect(10 * x - 2, 10 * y - 2, 10 * side + 4, 10 * side + 4);
}

function draw() {
  const seen = windowAt(y, x), products = times(seen), total = sum(products);
  const sums = Array.from({length: 900}, (_, n) => sum(times(windowAt(Math.floor(n / 30), n % 30))));
  const limit = Math.max(...sums.map(Math.abs));
  const gray = (value) => `rgb(${value} ${value} ${value})`;
  fill("window", seen, gray);
  fill("kernel", kernel, (value) => color(kernel.includes(-1) ? value : 255 * value, 1));
  fill("products", products, (value) => color(value, 255));
  paint(image, 32, 3, (row, column) => gray(pixels[32 * row + column]));
  paint(output, 30, 1, (row, column) => color(sums[30 * row + column], limit));
  document.getElementById("sum").textContent =
    `Row ${y}, column ${x}: the sum of the nine products is ${text(total)}.`;
}

function move(row, column) {
  [y, x] = [row, column].map((number) => Math.min(29, Math.max(0, number)));
  draw();
}
const ARROWS = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
image.addEventListener("keydown", (event) => {
  if (!(event.key in ARROWS) || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  move(y + ARROWS[event.key][0], x + ARROWS[event.key][1]);
});
for (const name of ["pointerdown", "pointermove"]) image.addEventListener(name, (event) => {
  if (!event.buttons) return;
  const at = (offset) => Math.floor(offset / image.clientWidth * 32) - 1;
  move(at(event.offsetY), at(event.offsetX));
});
place.addEventListener("change", (event) => { kernel = KERNELS[event.target.value]; draw(); });
draw();
