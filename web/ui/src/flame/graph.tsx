// One flame graph on a canvas: painting, pointer and keys. It holds no state of its own beyond the zoom animation and
// the scroll position; focus, cursor and hover belong to the panel, so that two graphs can share them.
import { effect, type Signal } from "@preact/signals";
import { useEffect, useLayoutEffect, useMemo, useRef } from "preact/hooks";
import { hold } from "../live";
import { theme, wantsStillness } from "../theme";
import { contentHeight, depthAt, draw, drawMarks, ROW, rowTop, type Scene } from "./draw";
import { nodeAt, spanOf, trunkDepth, type Layout, type Span } from "./layout";
import { moveCursor, type Move } from "./navigate";
import { fillsOf, PALETTES, type ChangeScale } from "./palette";
import type { FlameTree } from "./tree";

export interface Hover {
  node: number;
  clientX: number;
  clientY: number;
}

export interface FlameGraphProps {
  label: string;
  statusId: string;
  tree: FlameTree;
  layout: Layout;
  /** Width of the whole view when nothing is zoomed; larger than the layout's when two graphs share a scale. */
  extent: number;
  /** Width of the view when `focus` is zoomed. */
  focusExtent: number;
  scale: ChangeScale;
  isDiff: boolean;
  rootAt: "top" | "bottom";
  focus: number;
  mask: Uint8Array | null;
  picked: readonly number[];
  cursor: Signal<number>;
  hover: Signal<Hover | null>;
  maxHeight: number;
  onFocus(node: number): void;
  onPick(node: number): void;
  /** Keys that belong to the panel: search, next match, reset. Returns true when handled. */
  onKey(key: string): boolean;
}

const ZOOM_MS = 160;
const CALLERS_SHOWN = 3;

export function FlameGraph(props: FlameGraphProps) {
  const { tree, layout, cursor, hover, focus, rootAt } = props;
  const scroller = useRef<HTMLDivElement>(null);
  const base = useRef<HTMLCanvasElement>(null);
  const over = useRef<HTMLCanvasElement>(null);
  const scene = useRef<Scene | null>(null);
  const shown = useRef<{ layout: Layout; span: Span } | null>(null);
  const frame = useRef(0);
  const isFocused = useRef(false);
  const release = useRef<(() => void) | null>(null);
  const latest = useRef(props);
  latest.current = props;

  const height = Math.min(contentHeight(tree), props.maxHeight);
  const palette = PALETTES[theme.value];
  const fills = useMemo(() => fillsOf(palette), [palette]);
  const target = useMemo<Span>(() => {
    const from = focus === 0 ? 0 : spanOf(layout, focus).from;
    return { from, to: from + (focus === 0 ? props.extent : props.focusExtent) };
  }, [layout, focus, props.extent, props.focusExtent]);

  const paintMarks = () => {
    const context = over.current?.getContext("2d");
    if (scene.current === null || context === null || context === undefined) return;
    const { picked } = latest.current;
    drawMarks(context, scene.current, {
      hover: hover.peek()?.node ?? -1,
      cursor: Math.min(cursor.peek(), tree.size - 1),
      picked,
      isFocused: isFocused.current,
    });
  };

  const paint = (span: Span) => {
    const box = scroller.current;
    const canvas = base.current;
    const context = canvas?.getContext("2d");
    if (box === null || canvas === null || context === null || context === undefined) return;
    const width = box.clientWidth;
    for (const layer of [canvas, over.current!]) fit(layer, width, height);
    scene.current = { ...latest.current, width, height, span, scroll: box.scrollTop, palette, fills };
    shown.current = { layout, span };
    draw(context, scene.current);
    paintMarks();
  };

  // Zoom: from the span on screen to the wanted one; at once when the tree changed or motion is unwelcome.
  useLayoutEffect(() => {
    const from = shown.current;
    cancelAnimationFrame(frame.current);
    if (from === null || from.layout !== layout || wantsStillness() || (from.span.from === target.from && from.span.to === target.to)) {
      paint(target);
      return undefined;
    }
    const started = performance.now();
    const step = (now: number) => {
      const done = Math.min(1, Math.max(0, (now - started) / ZOOM_MS));
      const eased = 1 - (1 - done) ** 3;
      paint({
        from: from.span.from + (target.from - from.span.from) * eased,
        to: from.span.to + (target.to - from.span.to) * eased,
      });
      if (done < 1) frame.current = requestAnimationFrame(step);
    };
    frame.current = requestAnimationFrame(step);
    return () => cancelAnimationFrame(frame.current);
  });

  useLayoutEffect(() => {
    const box = scroller.current;
    if (box === null) return;
    // Unzoomed, a graph taller than its box opens where it branches instead of on a stack of equal rows.
    const wanted = focus !== 0 ? tree.depth[focus]! : contentHeight(tree) > height ? trunkDepth(tree, layout) : 0;
    const depth = Math.max(0, wanted - CALLERS_SHOWN);
    const top = rowTop({ tree, rootAt }, depth);
    box.scrollTop = rootAt === "top" ? top : top + ROW - height;
  }, [focus, tree.key[focus], contentHeight(tree) > height, rootAt]);

  useEffect(() => {
    const observer = new ResizeObserver(() => paintLatest.current());
    observer.observe(scroller.current!);
    return () => {
      observer.disconnect();
      release.current?.();
    };
  }, []);
  const paintLatest = useRef(() => {});
  paintLatest.current = () => paint(shown.current?.layout === layout ? shown.current.span : target);

  useEffect(
    () =>
      effect(() => {
        // Read both so that either repaints the marks.
        void hover.value;
        const at = cursor.value;
        if (isFocused.current) reveal(at);
        paintMarks();
      }),
    [tree, layout, rootAt],
  );

  const reveal = (node: number) => {
    const box = scroller.current;
    if (box === null || node >= tree.size) return;
    const top = rowTop({ tree, rootAt }, tree.depth[node]!);
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + ROW > box.scrollTop + height) box.scrollTop = top + ROW - height;
  };

  const nodeUnder = (event: PointerEvent | MouseEvent): number => {
    const box = scroller.current;
    const span = scene.current?.span;
    if (box === null || span === undefined) return -1;
    const bounds = box.getBoundingClientRect();
    const depth = depthAt({ tree, rootAt }, event.clientY - bounds.top + box.scrollTop);
    const position = span.from + ((event.clientX - bounds.left) / box.clientWidth) * (span.to - span.from);
    return nodeAt(layout, depth, position);
  };

  const keyDown = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const towardsRoot = rootAt === "top" ? "ArrowUp" : "ArrowDown";
    const towardsLeaf = rootAt === "top" ? "ArrowDown" : "ArrowUp";
    const moves: Record<string, Move> = { [towardsRoot]: "parent", [towardsLeaf]: "child", ArrowLeft: "left", ArrowRight: "right", Home: "first" };
    const move = moves[event.key];
    const at = Math.min(cursor.value, tree.size - 1);
    if (move !== undefined) cursor.value = moveCursor(tree, layout, at, move);
    else if (event.key === "Enter") props.onFocus(at);
    else if (event.key === " ") props.onPick(at);
    else if (!props.onKey(event.key)) return;
    event.preventDefault();
  };

  return (
    <div
      ref={scroller}
      class="flame-scroller"
      style={{ height: `${height}px` }}
      // One stop in the tab order; arrow keys move inside.
      tabIndex={0}
      role="application"
      aria-roledescription="flame graph"
      aria-label={props.label}
      aria-describedby={props.statusId}
      onKeyDown={keyDown}
      onFocus={() => {
        isFocused.current = true;
        paintMarks();
      }}
      onBlur={() => {
        isFocused.current = false;
        paintMarks();
      }}
      onScroll={() => paintLatest.current()}
      onPointerEnter={() => {
        release.current ??= hold();
      }}
      onPointerMove={(event) => {
        const node = nodeUnder(event);
        hover.value = node < 0 ? null : { node, clientX: event.clientX, clientY: event.clientY };
      }}
      onPointerLeave={() => {
        hover.value = null;
        release.current?.();
        release.current = null;
      }}
      onClick={(event) => {
        const node = nodeUnder(event);
        if (node < 0) return;
        // What lies under the pointer is about to change.
        hover.value = null;
        cursor.value = node;
        props.onPick(node);
        props.onFocus(node);
      }}
    >
      <div class="flame-content" style={{ height: `${contentHeight(tree)}px` }}>
        <div class="flame-layers">
          <canvas ref={base} aria-hidden="true" />
          <canvas ref={over} aria-hidden="true" />
        </div>
      </div>
    </div>
  );
}

/** Gives a canvas its size in CSS pixels and in device pixels. */
function fit(canvas: HTMLCanvasElement, width: number, height: number): void {
  const density = devicePixelRatio;
  const pixels = Math.round(width * density);
  const lines = Math.round(height * density);
  if (canvas.width === pixels && canvas.height === lines) return;
  canvas.width = pixels;
  canvas.height = lines;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  canvas.getContext("2d")?.setTransform(density, 0, 0, density, 0, 0);
}
