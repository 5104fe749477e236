// Renders cartoon faces: `node render.mjs SPLIT FIRST COUNT` writes COUNT raw RGB frames of
// SIZE×SIZE to stdout. Frame i is a function of (SPLIT, i) alone, so the work can be cut anywhere.

import { createHash } from "node:crypto";
import { writeSync } from "node:fs";
import { createAvatar } from "@dicebear/core";
import * as styles from "@dicebear/collection";
import { Resvg } from "@resvg/resvg-js";

const SIZE = 96;

// Where the face is in each style's own unit square, and how large a part of it to show.
const FRAMING = {
  toonHead: { x: 0.5, y: 0.52, part: 0.8 },
  personas: { x: 0.5, y: 0.42, part: 0.62 },
  adventurer: { x: 0.5, y: 0.54, part: 0.74 },
  bigEars: { x: 0.5, y: 0.52, part: 0.78 },
  miniavs: { x: 0.5, y: 0.46, part: 0.66 },
  micah: { x: 0.5, y: 0.46, part: 0.72 },
  bigSmile: { x: 0.5, y: 0.54, part: 0.84 },
  dylan: { x: 0.5, y: 0.5, part: 0.84 },
};

// Few, so that a model can learn their exact levels.
const BACKGROUNDS = [
  "#f4d35e", "#ee964b", "#f95738", "#0d3b66", "#3d8bd4", "#8ecae6", "#2a9d8f", "#a7c957",
  "#386641", "#6a4c93", "#c77dff", "#ffafcc", "#f1faee", "#adb5bd", "#495057", "#7f5539",
];

/** Sixteen numbers in [0, 1) that depend on the split and the index alone. */
function numbers(split, index) {
  const digest = createHash("sha512").update(`${split}/${index}`).digest();
  return Array.from({ length: 16 }, (_, k) => digest.readUInt32LE(4 * k) / 2 ** 32);
}

/** The SVG of one face: two-colour background, then the avatar moved, turned, scaled and flipped. */
function face(split, index) {
  const [which, shade, other, slope, cut, zoom, right, down, turn, mirror] = numbers(split, index);
  const name = Object.keys(FRAMING)[Math.floor(which * Object.keys(FRAMING).length)];
  const avatar = createAvatar(styles[name], {
    seed: `${split}/${index}`,
    backgroundColor: ["transparent"], // dylan brings its own otherwise
  }).toString();
  const { x, y, part } = FRAMING[name];

  const first = Math.floor(shade * BACKGROUNDS.length);
  const second = (first + 1 + Math.floor(other * (BACKGROUNDS.length - 1))) % BACKGROUNDS.length;
  const scale = (0.8 + 0.3 * zoom) / part;
  const flip = mirror < 0.5 ? -1 : 1;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1" width="${SIZE}" height="${SIZE}">
    <rect width="1" height="1" fill="${BACKGROUNDS[first]}"/>
    <rect x="-1" y="${0.2 + 0.6 * cut - 0.5}" width="3" height="3" fill="${BACKGROUNDS[second]}"
      transform="translate(0.5 0.5) rotate(${360 * slope})"/>
    <g transform="translate(${0.5 + 0.2 * (right - 0.5)} ${0.5 + 0.2 * (down - 0.5)})
      rotate(${24 * (turn - 0.5)}) scale(${flip * scale} ${scale}) translate(${-x} ${-y})">
      ${avatar.replace("<svg ", '<svg width="1" height="1" ')}
    </g>
  </svg>`;
}

/** The red, green and blue bytes of one frame, without the alpha that the renderer adds. */
function frame(split, index) {
  const { pixels } = new Resvg(face(split, index), { font: { loadSystemFonts: false } }).render();
  return pixels.filter((_, k) => k % 4 !== 3);
}

const [split, first, count] = process.argv.slice(2);
for (let index = Number(first); index < Number(first) + Number(count); index++) {
  const bytes = frame(split, index);
  for (let sent = 0; sent < bytes.length; ) sent += writeSync(1, bytes, sent);
}
