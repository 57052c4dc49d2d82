// Numbers as the server writes them (app/dashboard/wording.py), for what changes while the page is open.

const THIN = "\u202f";

export function number(value, digits = 4) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en").replaceAll(",", THIN);
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e6) {
    const [mantissa, exponent] = value.toExponential(Math.max(0, digits - 2)).split("e");
    return `${Number(mantissa)}e${Number(exponent)}`;
  }
  const [whole, rest] = String(Number(value.toFixed(Math.max(0, digits - 1 - Math.floor(Math.log10(size)))))).split(".");
  return (size < 1e3 ? whole : Number(whole).toLocaleString("en").replaceAll(",", THIN)) + (rest ? `.${rest}` : "");
}

export function size(value) {
  let amount = value;
  let unit = "B";
  for (const larger of ["kB", "MB", "GB", "TB"]) {
    if (Math.abs(amount) < 1000) break;
    amount /= 1000;
    unit = larger;
  }
  return `${amount.toFixed(unit === "B" || amount >= 100 ? 0 : 1)}${THIN}${unit}`;
}

export function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)}${THIN}ms`;
  if (seconds < 10) return `${seconds.toFixed(1)}${THIN}s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole}${THIN}s`;
  const [part, unit, rest, small] =
    whole < 3600 ? [60, "min", 1, "s"] : whole < 86400 ? [3600, "h", 60, "min"] : [86400, "d", 3600, "h"];
  const left = Math.floor((whole % part) / rest);
  return `${Math.floor(whole / part)}${THIN}${unit}` + (left ? ` ${left}${THIN}${small}` : "");
}

export const percent = (share, digits = 1) => `${(share * 100).toFixed(digits)}${THIN}%`;

export const READS = { number, size, duration, percent };

// Note on the page when its curves first stood on the screen, for whoever measures it.
export function tellDrawn() {
  requestAnimationFrame(() =>
    setTimeout(() => (document.documentElement.dataset.drawn ??= String(Math.round(performance.now())))),
  );
}
