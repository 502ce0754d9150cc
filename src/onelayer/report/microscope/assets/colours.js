// Colours and their scale: blue is negative, orange is positive, zero looks like the page (told apart with any eyes).

const ENDS = { blue: [0, 114, 178], orange: [230, 159, 0] };
const SHADES = 96; // of either sign
let shades = [];
let ink = "#222222";

export function readTheme() {
  const style = getComputedStyle(document.documentElement);
  const page = style.getPropertyValue("--page").trim().match(/\w\w/g).map((hex) => parseInt(hex, 16));
  ink = style.getPropertyValue("--ink").trim();
  shades = Array.from({ length: 2 * SHADES + 1 }, (_, i) => {
    const end = i < SHADES ? ENDS.blue : ENDS.orange;
    const share = Math.abs(i - SHADES) / SHADES;
    return `rgb(${page.map((from, c) => Math.round(from + share * (end[c] - from))).join(" ")})`;
  });
}

export const inkColour = () => ink;

// x from −1 to 1.
export const colour = (x) => shades[Math.round(SHADES * (1 + Math.max(-1, Math.min(1, x))))];

// arcsinh around a centre: what is about as large as the centre is told apart best, whatever the largest is.
export function scale(values, centre) {
  const largest = values.reduce((most, x) => Math.max(most, Math.abs(x)), 1e-300);
  const own = Math.min(Math.max(Math.abs(centre), largest * 1e-4), largest);
  const top = Math.asinh(largest / own);
  return { largest, of: (x) => Math.asinh(x / own) / top };
}

// Where nothing is looked at: the size of a usual cell.
export function usual(values) {
  return Math.sqrt(values.reduce((total, x) => total + x * x, 0) / Math.max(1, values.length));
}
