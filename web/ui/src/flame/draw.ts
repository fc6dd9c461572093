// Paints the rows in view onto a canvas: fills bucketed by colour, then labels, then hatches and outlines. Painting
// costs what is visible, not what exists.
import { nanoseconds, shortName, signed } from "../format";
import { NodeKind } from "../types";
import { boxesInView, type Box, type Layout, type Span } from "./layout";
import { glyphOf, isSignificant, Shade, shadeOf, type ChangeScale, type Palette } from "./palette";
import { nameOf, type FlameTree } from "./tree";

export const ROW = 20;
const LABEL_MINIMUM = 26;
const FONT = '11.5px system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif';

export interface Scene {
  tree: FlameTree;
  layout: Layout;
  span: Span;
  scale: ChangeScale;
  /** False for one release alone, where colour and signs would say nothing. */
  isDiff: boolean;
  width: number;
  height: number;
  /** Pixels scrolled off at the top. */
  scroll: number;
  rootAt: "top" | "bottom";
  focus: number;
  mask: Uint8Array | null;
  palette: Palette;
  fills: readonly string[];
}

/** Height of all rows. */
export function contentHeight(tree: FlameTree): number {
  return (tree.deepest + 1) * ROW;
}

/** Top of a depth's row inside the content. */
export function rowTop(scene: Pick<Scene, "tree" | "rootAt">, depth: number): number {
  return (scene.rootAt === "top" ? depth : scene.tree.deepest - depth) * ROW;
}

/** The depth at a height inside the content. */
export function depthAt(scene: Pick<Scene, "tree" | "rootAt">, y: number): number {
  const row = Math.floor(y / ROW);
  return scene.rootAt === "top" ? row : scene.tree.deepest - row;
}

export function draw(context: CanvasRenderingContext2D, scene: Scene): void {
  const { tree, layout, span, width, height, scroll, palette } = scene;
  context.clearRect(0, 0, width, height);
  if (layout.extent <= 0 || span.to <= span.from) return;
  context.font = FONT;
  context.textBaseline = "middle";

  const first = Math.floor(scroll / ROW);
  const last = Math.min(tree.deepest, Math.ceil((scroll + height) / ROW));
  const buckets: number[][] = scene.fills.map(() => []);
  const boxes: Box[] = [];
  const tops: number[] = [];
  for (let row = first; row <= last; row += 1) {
    const depth = scene.rootAt === "top" ? row : tree.deepest - row;
    const before = boxes.length;
    boxesInView(layout, layout.rows[depth] ?? new Int32Array(0), span, width, boxes);
    for (let at = before; at < boxes.length; at += 1) {
      tops.push(row * ROW - scroll);
      const box = boxes[at]!;
      const shade = box.node < 0 ? Shade.smear : scene.isDiff ? shadeOf(tree, box.node, scene.scale) : soloShade(tree, box.node);
      buckets[shade]!.push(at);
    }
  }

  buckets.forEach((members, shade) => {
    if (members.length === 0) return;
    context.fillStyle = scene.fills[shade]!;
    for (const at of members) {
      const box = boxes[at]!;
      // A pixel of gap between neighbours, given up when the frame is nearly that thin itself.
      const gap = box.right - box.left > 3 ? 1 : 0;
      const dimmed = isDimmed(scene, box.node);
      if (dimmed) context.globalAlpha = 0.32;
      context.fillRect(box.left, tops[at]!, Math.max(0.6, box.right - box.left - gap), ROW - 1);
      if (dimmed) context.globalAlpha = 1;
    }
  });

  const hatch = hatchPattern(context, palette);
  boxes.forEach((box, at) => {
    if (box.node < 0) return;
    const top = tops[at]!;
    decorate(context, scene, box, top, hatch);
    if (box.right - box.left >= LABEL_MINIMUM) label(context, scene, box, top);
  });
}

function isDimmed(scene: Scene, node: number): boolean {
  if (node < 0) return scene.mask !== null;
  if (scene.mask !== null) return scene.mask[scene.tree.name[node]!] === 0;
  return scene.focus > 0 && node < scene.focus;
}

function soloShade(tree: FlameTree, node: number): number {
  const kind = tree.kind[node];
  if (kind === NodeKind.cut || kind === NodeKind.unresolved || kind === NodeKind.root) return Shade.unsure;
  // Two tones by name keep neighbours apart without meaning anything.
  return kind === NodeKind.library ? Shade.same : Shade.solo + (tree.name[node]! % 2);
}

function hatchPattern(context: CanvasRenderingContext2D, palette: Palette): CanvasPattern | null {
  const tile = new OffscreenCanvas(6, 6);
  const pen = tile.getContext("2d");
  if (pen === null) return null;
  pen.strokeStyle = palette.hatch;
  pen.lineWidth = 1.2;
  for (const shift of [-6, 0, 6]) {
    pen.beginPath();
    pen.moveTo(shift, 6);
    pen.lineTo(shift + 6, 0);
    pen.stroke();
  }
  return context.createPattern(tile, "repeat");
}

function decorate(context: CanvasRenderingContext2D, scene: Scene, box: Box, top: number, hatch: CanvasPattern | null): void {
  const { tree, scale, palette } = scene;
  const width = box.right - box.left;
  if (width < 3) return;
  const state = scale.functions[tree.fn[box.node]!]?.state;
  if (scene.isDiff && state === "new" && tree.totalA[box.node] === 0 && hatch !== null) {
    context.fillStyle = hatch;
    context.fillRect(box.left, top, width - 1, ROW - 1);
  }
  if (scene.isDiff && state === "gone" && tree.totalB[box.node] === 0) {
    context.strokeStyle = palette.cursor;
    context.lineWidth = 1;
    context.setLineDash([3, 2]);
    context.strokeRect(box.left + 0.5, top + 0.5, width - 2, ROW - 2);
    context.setLineDash([]);
  }
  if (palette.same === "Canvas") {
    context.strokeStyle = palette.gap;
    context.lineWidth = 1;
    context.strokeRect(box.left + 0.5, top + 0.5, width - 1, ROW - 1);
  }
}

/** The sign and size of a frame's change, when the comparison stands by it. */
function changeMark(scene: Scene, node: number): { glyph: string; delta: string } {
  if (!scene.isDiff) return { glyph: "", delta: "" };
  const row = scene.scale.functions[scene.tree.fn[node]!];
  const isMarked = row === undefined ? scene.tree.kind[node] === NodeKind.root && scene.scale.isJudged : isSignificant(row.confidence);
  const delta = scene.tree.totalB[node]! - scene.tree.totalA[node]!;
  if (!isMarked || delta === 0) return { glyph: "", delta: "" };
  return { glyph: `${glyphOf(delta)} `, delta: signed(delta, nanoseconds) };
}

const CHARACTER = 6.1;

function label(context: CanvasRenderingContext2D, scene: Scene, box: Box, top: number): void {
  const { tree, palette } = scene;
  const room = box.right - box.left - 9;
  const full = nameOf(tree, box.node);
  const { glyph, delta } = changeMark(scene, box.node);
  context.fillStyle = palette.text;
  const dimmed = isDimmed(scene, box.node);
  if (dimmed) context.globalAlpha = 0.55;
  // The least telling part goes first: the path, then the number, then the end of the name.
  const options = delta === "" ? [full, shortName(full, 2), shortName(full)] : [
    `${glyph}${full}  ${delta}`,
    `${glyph}${shortName(full, 2)}  ${delta}`,
    `${glyph}${shortName(full)}  ${delta}`,
    `${glyph}${shortName(full)}`,
  ];
  // Estimated widths rule out most candidates without measuring them.
  let text = options.find((option) => option.length * CHARACTER * 0.75 <= room && context.measureText(option).width <= room);
  if (text === undefined) {
    const shortest = options[options.length - 1]!;
    let length = Math.min(shortest.length, Math.floor(room / (CHARACTER * 0.7)));
    while (length > 2 && context.measureText(`${shortest.slice(0, length)}…`).width > room) length -= 1;
    text = length > 2 ? `${shortest.slice(0, length)}…` : glyph.trim();
  }
  if (text !== "") context.fillText(text, box.left + 4, top + ROW / 2 - 0.5);
  if (dimmed) context.globalAlpha = 1;
}

/** Outlines of the frame under the pointer, the keyboard cursor and the picked function; drawn on a canvas of its own. */
export function drawMarks(
  context: CanvasRenderingContext2D,
  scene: Scene,
  marks: { hover: number; cursor: number; picked: readonly number[]; isFocused: boolean },
): void {
  context.clearRect(0, 0, scene.width, scene.height);
  if (scene.layout.extent <= 0) return;
  const outline = (node: number, thickness: number, dash: number[] = []) => {
    if (node < 0 || scene.layout.w[node]! <= 0) return;
    const scale = scene.width / (scene.span.to - scene.span.from);
    const left = Math.max(0, (scene.layout.x[node]! - scene.span.from) * scale);
    const right = Math.min(scene.width, (scene.layout.x[node]! + scene.layout.w[node]! - scene.span.from) * scale);
    if (right <= left) return;
    const top = rowTop(scene, scene.tree.depth[node]!) - scene.scroll;
    context.strokeStyle = scene.palette.cursor;
    context.lineWidth = thickness;
    context.setLineDash(dash);
    const inset = thickness / 2;
    context.strokeRect(left + inset, top + inset, Math.max(1, right - left - thickness - 1), ROW - 1 - thickness);
  };
  for (const node of marks.picked) outline(node, 1.6);
  outline(marks.hover, 1);
  if (marks.isFocused) outline(marks.cursor, 2.4);
  context.setLineDash([]);
}
