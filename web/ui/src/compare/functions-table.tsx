// The table of changed functions: narrow beside the graph, with every column when it has the page to itself.
import { useMemo, useRef } from "preact/hooks";
import { CONFIDENCE_WORDS } from "../flame/describe";
import { glyphOf, isSignificant } from "../flame/palette";
import { changeShare, count, nanoseconds, pathOf, PER_WORDS, ratio, shortName, signed } from "../format";
import { Spaced, useSlice } from "../parts/virtual";
import { patch, url } from "../router";
import type { Diff, FunctionRow } from "../types";
import { FACETS, type Facet, type SortKey } from "../url";
import { candidates, emptyWords, facetCounts, hiddenLibraries, selectFunctions, shownCode } from "./functions";

const ROW_HEIGHT = 38;

const FACET_WORDS: Record<Facet, string> = { all: "All", significant: "Significant", up: "▲ Up", down: "▼ Down", new: "New", gone: "Gone" };
const STATE_WORDS: Record<FunctionRow["state"], string> = { new: "new", gone: "gone", up: "up", down: "down", same: "same" };

interface Column {
  key: SortKey | null;
  head: string;
  title?: string;
  isText?: boolean;
  cell(row: FunctionRow, scale: number): preact.ComponentChildren;
}

const CHANGE_TOTAL: Column = {
  key: "delta_total",
  head: "Δ total",
  title: "Change of the function and everything it calls",
  cell: (row, scale) => <DeltaBar delta={row.delta_total} scale={scale} row={row} />,
};
const CHANGE_SELF: Column = {
  key: "delta_self",
  head: "Δ self",
  title: "Change of the function's own code",
  cell: (row) => signed(row.delta_self),
};

const NARROW: Column[] = [
  CHANGE_TOTAL,
  CHANGE_SELF,
  { key: "total_b", head: "Total", title: "Baseline to candidate", cell: (row) => <FromTo a={row.total_a} b={row.total_b} /> },
];

const WIDE: Column[] = [
  CHANGE_TOTAL,
  { key: null, head: "95 % interval", cell: (row) => <span class="soft">{`${signed(row.low)} … ${signed(row.high)}`}</span> },
  CHANGE_SELF,
  { key: "contribution", head: "Share", title: "Own change as a share of the total change", cell: (row) => changeShare(row.contribution) },
  { key: "self_a", head: "Base self", title: "Own code, baseline", cell: (row) => nanoseconds(row.self_a) },
  { key: "self_b", head: "Cand. self", title: "Own code, candidate", cell: (row) => nanoseconds(row.self_b) },
  { key: "total_a", head: "Base total", title: "With everything it calls, baseline", cell: (row) => nanoseconds(row.total_a) },
  { key: "total_b", head: "Cand. total", title: "With everything it calls, candidate", cell: (row) => nanoseconds(row.total_b) },
  { key: "ratio", head: "Ratio", cell: (row) => ratio(row.ratio) },
  { key: "confidence", head: "Evidence", isText: true, cell: (row) => <span title={`q = ${row.q_value.toPrecision(2)}`}>{CONFIDENCE_WORDS[row.confidence]}</span> },
  { key: null, head: "State", isText: true, cell: (row) => STATE_WORDS[row.state] },
];

export function FunctionsTable({ diff, isWide }: { diff: Diff; isWide: boolean }) {
  const state = url.value;
  const scroller = useRef<HTMLDivElement>(null);
  const code = useMemo(() => shownCode(diff.functions, state.code), [diff, state.code]);
  const pool = useMemo(() => candidates(diff.functions, { find: state.find, code }), [diff, state.find, code]);
  const counts = useMemo(() => facetCounts(pool), [pool]);
  const isDefaultOrder = state.sort === "contribution" && state.descending;
  const rows = useMemo(
    () =>
      selectFunctions(pool, {
        show: state.show,
        find: null,
        code: "all",
        sort: state.sort,
        descending: state.descending,
        pinned: isDefaultOrder ? diff.guilty : null,
      }),
    [pool, state.show, state.sort, state.descending, diff.guilty],
  );
  const scale = useMemo(() => Math.max(...diff.functions.map((row) => Math.abs(row.delta_total)), 1e-9), [diff]);
  const slice = useSlice(scroller, ROW_HEIGHT, rows.length);
  const columns = isWide ? WIDE : NARROW;
  const hidden = useMemo(() => hiddenLibraries(diff.functions), [diff]);
  const sortBy = (key: SortKey) => patch(state.sort === key ? { descending: !state.descending } : { sort: key, descending: key !== "name" }, "replace");

  return (
    <section class="panel functions" aria-label="Changed functions">
      <header class="panel-head">
        <h2>Changed functions</h2>
        <span class="soft">CPU {PER_WORDS[diff.per].short}</span>
      </header>
      <div class="facets" role="group" aria-label="Filter functions">
        {FACETS.map((facet) => (
          <button type="button" key={facet} class="chip" aria-pressed={state.show === facet} onClick={() => patch({ show: facet }, "replace")}>
            {FACET_WORDS[facet]} <span class="chip-count">{count(counts[facet])}</span>
          </button>
        ))}
      </div>
      <div class="table-scroll functions-scroll" ref={scroller} tabIndex={-1}>
        <table aria-rowcount={rows.length + 1}>
          <thead>
            <tr>
              <SortableHead column={{ key: "name", head: "Function", isText: true, cell: () => null }} onSort={sortBy} />
              {columns.map((column) => (
                <SortableHead key={column.head} column={column} onSort={sortBy} />
              ))}
            </tr>
          </thead>
          <tbody>
            <Spaced slice={slice} rowHeight={ROW_HEIGHT} rows={rows.length} columns={columns.length + 1}>
              {rows.slice(slice.first, slice.last).map((row, at) => (
                <Row
                  key={row.id}
                  row={row}
                  index={slice.first + at}
                  columns={columns}
                  scale={scale}
                  isGuilty={row.id === diff.guilty}
                  isPicked={row.id === state.pick}
                />
              ))}
            </Spaced>
          </tbody>
        </table>
        {rows.length === 0 && <p class="soft table-empty">{emptyWords(diff.functions, { show: state.show, find: state.find, code })}</p>}
      </div>
      <footer class="panel-foot soft">
        {state.code !== code && diff.functions.length > 0 ? (
          <>
            None of these {count(diff.functions.length)} functions is recognised as own code, so all are shown; configure it with the server’s <code>--own-code</code>
          </>
        ) : code === "mine" && hidden.count > 0 ? (
          <>
            {count(hidden.count)} library functions hidden
            {hidden.largest !== 0 && <>, the largest self change is {signed(hidden.largest)}</>}.{" "}
            <button type="button" class="link" onClick={() => patch({ code: "all" })}>
              Show all code
            </button>
          </>
        ) : (
          <>
            {count(diff.functions.length)} functions{" "}
            <button type="button" class="link" onClick={() => patch({ code: "mine" })}>
              Only my code
            </button>
          </>
        )}
        {diff.functions_cut.count > 0 && <> · {count(diff.functions_cut.count)} more omitted by the limit</>}
      </footer>
    </section>
  );
}

function SortableHead({ column, onSort }: { column: Column; onSort(key: SortKey): void }) {
  const { sort, descending } = url.value;
  const { key } = column;
  const isSorted = key === sort;
  return (
    <th
      scope="col"
      class={column.isText === true ? undefined : "number"}
      aria-sort={isSorted ? (descending ? "descending" : "ascending") : undefined}
      title={column.title}
    >
      {key === null ? (
        column.head
      ) : (
        <button type="button" class="sorter" onClick={() => onSort(key)}>
          {column.head}
          <span aria-hidden="true" class="sort-mark">
            {isSorted ? (descending ? " ↓" : " ↑") : ""}
          </span>
        </button>
      )}
    </th>
  );
}

interface RowProps {
  row: FunctionRow;
  index: number;
  columns: Column[];
  scale: number;
  isGuilty: boolean;
  isPicked: boolean;
}

function Row({ row, index, columns, scale, isGuilty, isPicked }: RowProps) {
  const pick = () => patch({ pick: isPicked ? null : row.id }, "replace");
  return (
    <tr
      class={`function-row${isPicked ? " is-picked" : ""}${isGuilty ? " is-guilty" : ""}`}
      style={{ height: `${ROW_HEIGHT}px` }}
      aria-rowindex={index + 2}
      data-function={row.id}
      onClick={pick}
    >
      <th scope="row">
        <button type="button" class="function-pick" aria-pressed={isPicked} title={row.name}>
          <span class="function-name">{shortName(row.name)}</span>
          {isGuilty && <span class="tag tag-guilty">guilty</span>}
          {(row.state === "new" || row.state === "gone") && <span class="tag">{row.state}</span>}
        </button>
        <span class="function-module">{[pathOf(row.name), row.module, row.library ? "library" : ""].filter((part) => part !== "").join(" · ")}</span>
      </th>
      {columns.map((column) => (
        <td key={column.head} class={column.isText === true ? undefined : "number"}>
          {column.cell(row, scale)}
        </td>
      ))}
    </tr>
  );
}

function FromTo({ a, b }: { a: number; b: number }) {
  return (
    <span class="from-to">
      <span class="soft">{nanoseconds(a)}</span>
      <span class="soft" aria-label="to">
        {" → "}
      </span>
      {nanoseconds(b)}
    </span>
  );
}

/** A signed number over a bar that grows left or right from the middle. */
function DeltaBar({ delta, scale, row }: { delta: number; scale: number; row: FunctionRow }) {
  const isSure = isSignificant(row.confidence);
  const size = Math.min(1, Math.abs(delta) / scale) * 50;
  const tone = !isSure ? "unsure" : delta > 0 ? "more" : "less";
  return (
    <span class="delta" title={`${CONFIDENCE_WORDS[row.confidence]}: 95 % interval ${signed(row.low)} to ${signed(row.high)}`}>
      <span class={`delta-text ${isSure ? tone : ""}`}>
        {isSure && <span aria-hidden="true">{glyphOf(delta)} </span>}
        {signed(delta)}
        {row.confidence === "weak" && <span aria-label="weak evidence"> ?</span>}
      </span>
      <span class="delta-track" aria-hidden="true">
        <i class={`delta-fill ${tone}`} style={{ left: `${delta < 0 ? 50 - size : 50}%`, width: `${size}%` }} />
      </span>
    </span>
  );
}

