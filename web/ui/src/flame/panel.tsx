// The flame graph with everything around it: views, search, breadcrumb, status line, legend. State that a link should
// carry lives in the address; the cursor and the hovered frame do not.
import { useSignal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { count, PER_WORDS, shortName } from "../format";
import { patch, url } from "../router";
import { Choice } from "../parts/choice";
import type { FunctionRow, Per } from "../types";
import { CallTree } from "./call-tree";
import { matchWords, statusOf } from "./describe";
import { FlameGraph, type Hover } from "./graph";
import { FlameLegend } from "./legend";
import { layOut, type Layout, type WidthMode } from "./layout";
import { cycle, matchedShare, matchingNodes, matchNames } from "./navigate";
import { fullChange, type ChangeScale } from "./palette";
import { FlameTip } from "./tip";
import { findKey, foldLibraries, isLibrary, nameOf, pathTo, writeKey, type FlameTree } from "./tree";

interface FlamePanelProps {
  tree: FlameTree;
  functions: readonly FunctionRow[];
  isJudged: boolean;
  per: Per;
  /** Null for one release alone. */
  names: { baseline: string; candidate: string } | null;
}

const STATUS_ID = "flame-status";
const NO_HOVER_HINT = "Arrow keys move between frames, Enter zooms, Escape resets, / searches.";

export function FlamePanel({ tree: whole, functions, isJudged, per, names }: FlamePanelProps) {
  const state = url.value;
  const isDiff = names !== null;
  const cursor = useSignal(0);
  const hover = useSignal<Hover | null>(null);
  const search = useRef<HTMLInputElement>(null);
  const region = useRef<HTMLDivElement>(null);

  const folded = useMemo(() => foldLibraries(whole, functions), [whole, functions]);
  // When nothing but the root is left there is no code of one's own to show.
  const canFold = folded.size > 1 && folded.size < whole.size;
  const isFolded = state.code === "mine" && canFold;
  const tree = isFolded ? folded : whole;

  const isSplit = isDiff && state.view === "split";
  const layouts = useMemo<Layout[]>(() => {
    const modes: WidthMode[] = isSplit ? ["baseline", "candidate"] : [isDiff ? state.width : "candidate"];
    return modes.map((mode) => layOut(tree, mode));
  }, [tree, isSplit, isDiff, state.width]);
  const main = layouts[layouts.length - 1]!;

  const scale = useMemo<ChangeScale>(
    () => ({ full: fullChange(tree.totalA[0] ?? 0, tree.totalB[0] ?? 0), functions, isJudged }),
    [tree, functions, isJudged],
  );
  const wanted = useMemo(() => findKey(tree, state.focus), [tree, state.focus]);
  const focus = layouts.some((layout) => layout.w[wanted]! > 0) ? wanted : 0;
  const mask = useMemo(() => matchNames(tree.names, state.find), [tree, state.find]);
  const matches = useMemo(() => matchingNodes(tree, main, mask), [tree, main, mask]);
  const share = useMemo(() => matchedShare(tree, main, matches), [tree, main, matches]);
  const picked = useMemo(() => {
    const row = functions.findIndex((candidate) => candidate.id === state.pick);
    if (row < 0) return [];
    const nodes: number[] = [];
    tree.fn.forEach((fn, node) => fn === row && nodes.push(node));
    return nodes;
  }, [tree, functions, state.pick]);

  // A refresh renumbers frames, so the cursor is carried over by its path; what was picked in the table moves it.
  const before = useRef(tree);
  if (before.current !== tree) {
    cursor.value = findKey(tree, writeKey(before.current, Math.min(cursor.peek(), before.current.size - 1)));
    before.current = tree;
  }
  useEffect(() => {
    if (picked.length > 0) cursor.value = picked[0]!;
  }, [state.pick]);

  const setFocus = (node: number) => patch({ focus: node === 0 ? null : writeKey(tree, node) });
  const pick = (node: number) => patch({ pick: functions[tree.fn[node]!]?.id ?? null }, "replace");
  const reset = () => patch({ focus: null });
  const panelKey = (key: string): boolean => {
    if (key === "Escape") reset();
    else if (key === "/") search.current?.focus();
    else if (key === "n") cursor.value = cycle(matches, cursor.value, 1);
    else if (key === "N") cursor.value = cycle(matches, cursor.value, -1);
    else if (key === "t") patch({ tree: !state.tree }, "replace");
    else return false;
    return true;
  };

  const extent = Math.max(...layouts.map((layout) => layout.extent));
  const focusExtent = Math.max(...layouts.map((layout) => layout.w[focus]!));
  const shared = {
    statusId: STATUS_ID, tree, scale, isDiff, rootAt: state.root, focus, mask, picked, cursor, hover,
    extent, focusExtent, onFocus: setFocus, onPick: pick, onKey: panelKey,
  };
  const unit = PER_WORDS[per].short;

  return (
    <section class="panel flame" aria-label="Flame graph" ref={region}>
      <header class="panel-head">
        <h2>{isDiff ? "Where the time goes" : "CPU profile"}</h2>
        <input
          ref={search}
          class="search"
          type="search"
          placeholder="Find functions  /"
          aria-label="Find functions"
          value={state.find ?? ""}
          onInput={(event) => patch({ find: event.currentTarget.value || null }, "replace")}
          onKeyDown={(event) => {
            if (event.key === "Enter") {
              cursor.value = cycle(matches, cursor.value, event.shiftKey ? -1 : 1);
              region.current?.querySelector<HTMLElement>(".flame-scroller")?.focus();
            }
            if (event.key === "Escape") patch({ find: null }, "replace");
          }}
        />
        <div class="tools">
          <label class="check">
            <input
              type="checkbox"
              checked={state.code === "mine"}
              disabled={!canFold}
              onChange={(event) => patch({ code: event.currentTarget.checked ? "mine" : "all" })}
            />
            Only my code
          </label>
          {isDiff && !isSplit && (
            <Choice
              label="Width"
              value={state.width}
              options={[
                ["max", "larger", "Frame width: the more expensive of the two releases"],
                ["baseline", "baseline"],
                ["candidate", "candidate"],
              ]}
              onChange={(width) => patch({ width }, "replace")}
            />
          )}
          <button
            type="button"
            class="quiet"
            aria-pressed={state.root === "bottom"}
            title="Draw the root at the bottom"
            onClick={() => patch({ root: state.root === "top" ? "bottom" : "top" }, "replace")}
          >
            {state.root === "top" ? "Root at top" : "Root at bottom"}
          </button>
          <button type="button" class="quiet" aria-pressed={state.tree} onClick={() => patch({ tree: !state.tree }, "replace")}>
            Call tree
          </button>
        </div>
      </header>
      <Breadcrumb tree={tree} focus={focus} onFocus={setFocus} found={mask === null ? null : matchWords(matches.length, share)} />
      {state.tree ? (
        <CallTree tree={tree} scale={scale} per={per} isDiff={isDiff} />
      ) : isSplit ? (
        <div class="flame-split">
          <h3>Baseline {names?.baseline}</h3>
          <FlameGraph {...shared} layout={layouts[0]!} maxHeight={300} label={`Baseline ${names?.baseline}, CPU ${unit}`} />
          <h3>Candidate {names?.candidate}</h3>
          <FlameGraph {...shared} layout={layouts[1]!} maxHeight={300} label={`Candidate ${names?.candidate}, CPU ${unit}`} />
        </div>
      ) : (
        <FlameGraph {...shared} layout={main} maxHeight={520} label={isDiff ? `Merged comparison, CPU ${unit}` : `CPU ${unit}`} />
      )}
      <footer class="flame-foot">
        <StatusLine id={STATUS_ID} text={statusOf(tree, main, Math.min(cursor.value, tree.size - 1), scale, per, isDiff)} isTouched={cursor.value > 0} />
        {isFolded && <span class="soft">{count(libraryCount(whole, functions))} library frames folded into their callers</span>}
        {isDiff && <FlameLegend />}
      </footer>
      <FlameTip hover={hover} tree={tree} scale={scale} per={per} isDiff={isDiff} isFolded={isFolded} />
    </section>
  );
}

function libraryCount(tree: FlameTree, functions: readonly FunctionRow[]): number {
  return tree.kind.reduce((sum, _, node) => sum + (isLibrary(tree, node, functions) ? 1 : 0), 0);
}

/** Always in the page, so that assistive technology knows it before it speaks. */
function StatusLine({ id, text, isTouched }: { id: string; text: string; isTouched: boolean }) {
  return (
    <p id={id} class="flame-status" role="status" aria-live="polite">
      {isTouched ? text : `${text}. ${NO_HOVER_HINT}`}
    </p>
  );
}

interface BreadcrumbProps {
  tree: FlameTree;
  focus: number;
  found: string | null;
  onFocus(node: number): void;
}

const CRUMBS = 4;

function Breadcrumb({ tree, focus, found, onFocus }: BreadcrumbProps) {
  if (focus === 0 && found === null) return null;
  const path = pathTo(tree, focus);
  const hidden = Math.max(0, path.length - 1 - CRUMBS);
  const shown = path.slice(1 + hidden);
  return (
    <nav class="crumbs" aria-label="Zoom">
      {focus !== 0 && (
        <>
          <button type="button" class="link" onClick={() => onFocus(0)}>
            all frames
          </button>
          {hidden > 0 && <span class="soft">› … {hidden} more</span>}
          {shown.map((node) => (
            <span key={node}>
              <span class="soft" aria-hidden="true">› </span>
              <button type="button" class="link" aria-current={node === focus} onClick={() => onFocus(node)}>
                {shortName(nameOf(tree, node))}
              </button>
            </span>
          ))}
        </>
      )}
      {found !== null && <span class="soft crumbs-end">{found}; n and N step through</span>}
    </nav>
  );
}
