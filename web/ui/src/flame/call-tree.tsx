// The same tree as a table that opens row by row: the way through for screen readers, and for people who like tables.
import { useMemo, useRef, useState } from "preact/hooks";
import { nanoseconds, PER_WORDS, shortName, signed } from "../format";
import type { Per } from "../types";
import { CONFIDENCE_WORDS } from "./describe";
import { isSignificant, type ChangeScale } from "./palette";
import { openAlongChange, openRows } from "./rows";
import { nameOf, type FlameTree } from "./tree";

interface CallTreeProps {
  tree: FlameTree;
  scale: ChangeScale;
  per: Per;
  isDiff: boolean;
}

export function CallTree({ tree, scale, per, isDiff }: CallTreeProps) {
  const [changes, setChanges] = useState<ReadonlyMap<number, boolean>>(new Map());
  const initial = useMemo(() => openAlongChange(tree, isDiff), [tree, isDiff]);
  const [at, setAt] = useState(0);
  const body = useRef<HTMLTableSectionElement>(null);
  const open = useMemo(() => {
    const set = new Set(initial);
    // Keyed by path, so that a refresh does not close what was opened.
    for (let node = 0; node < tree.size; node += 1) {
      const change = changes.get(tree.key[node]!);
      if (change === true) set.add(node);
      else if (change === false) set.delete(node);
    }
    return set;
  }, [tree, initial, changes]);
  const rows = openRows(tree, open);
  const current = Math.min(at, rows.length - 1);

  const setOpen = (node: number, isOpen: boolean) => setChanges(new Map(changes).set(tree.key[node]!, isOpen));
  const moveTo = (index: number) => {
    const next = Math.max(0, Math.min(rows.length - 1, index));
    setAt(next);
    (body.current?.children[next] as HTMLElement | undefined)?.focus();
  };
  const keyDown = (event: KeyboardEvent) => {
    const node = rows[current]!;
    const hasChildren = tree.end[node]! > node + 1;
    if (event.key === "ArrowDown") moveTo(current + 1);
    else if (event.key === "ArrowUp") moveTo(current - 1);
    else if (event.key === "Home") moveTo(0);
    else if (event.key === "End") moveTo(rows.length - 1);
    else if (event.key === "ArrowRight" && hasChildren) {
      if (open.has(node)) moveTo(current + 1);
      else setOpen(node, true);
    } else if (event.key === "ArrowLeft") {
      if (open.has(node) && hasChildren) setOpen(node, false);
      else moveTo(rows.indexOf(tree.parent[node]!));
    } else return;
    event.preventDefault();
  };

  return (
    <div class="table-scroll call-tree">
      <table role="treegrid" aria-label={`Call tree, CPU ${PER_WORDS[per].short}`}>
        <thead>
          <tr>
            <th scope="col">Function</th>
            {isDiff && <th scope="col" class="number">Baseline</th>}
            <th scope="col" class="number">{isDiff ? "Candidate" : "Total"}</th>
            {isDiff && <th scope="col" class="number">Change</th>}
            <th scope="col" class="number">Self</th>
            {isDiff && <th scope="col">Evidence</th>}
          </tr>
        </thead>
        <tbody ref={body} onKeyDown={keyDown}>
          {rows.map((node, index) => {
            const hasChildren = tree.end[node]! > node + 1;
            const row = scale.functions[tree.fn[node]!];
            const delta = tree.totalB[node]! - tree.totalA[node]!;
            const tone = row !== undefined && isSignificant(row.confidence) ? (delta > 0 ? "more" : "less") : "";
            return (
              <tr
                key={tree.key[node]}
                aria-level={tree.depth[node]! + 1}
                aria-expanded={hasChildren ? open.has(node) : undefined}
                tabIndex={index === current ? 0 : -1}
                onFocus={() => setAt(index)}
              >
                <th scope="row" style={{ paddingLeft: `${8 + Math.min(40, tree.depth[node]!) * 8}px` }}>
                  {hasChildren ? (
                    <button
                      type="button"
                      class="twist"
                      tabIndex={-1}
                      aria-label={open.has(node) ? "Close" : "Open"}
                      onClick={() => setOpen(node, !open.has(node))}
                    >
                      {open.has(node) ? "▾" : "▸"}
                    </button>
                  ) : (
                    <span class="twist" />
                  )}
                  <span class="function-name" title={nameOf(tree, node)}>
                    {shortName(nameOf(tree, node))}
                  </span>
                </th>
                {isDiff && <td class="number">{nanoseconds(tree.totalA[node]!)}</td>}
                <td class="number">{nanoseconds(tree.totalB[node]!)}</td>
                {isDiff && <td class={`number ${tone}`}>{signed(delta)}</td>}
                <td class="number">{nanoseconds(tree.selfB[node]!)}</td>
                {isDiff && <td>{row === undefined ? "" : CONFIDENCE_WORDS[row.confidence]}</td>}
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}
