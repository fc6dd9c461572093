// The map as a table: every edge a row, both sides beside each other, sortable.
import { useMemo, useState } from "preact/hooks";
import { count, milliseconds, percent, rate } from "../format";
import type { EdgeSide, Topology } from "../types";
import { edgeRows, sortRows, type EdgeKey } from "./rows";
import { gap, gapWords } from "./words";

const COLUMNS: readonly [EdgeKey, string][] = [
  ["source", "From"],
  ["destination", "To"],
  ["rate", "Rate"],
  ["errors", "Errors"],
  ["p50", "p50"],
  ["p99", "p99"],
  ["gap", "Gap p50"],
];

function cell(side: EdgeSide | null, format: (side: EdgeSide) => string) {
  return side === null ? <span class="soft not-reported">not reported</span> : format(side);
}

export function TopologyTable({ topology, selected, onSelect }: { topology: Topology; selected: string | null; onSelect(id: string): void }) {
  const [order, setOrder] = useState<{ key: EdgeKey; descending: boolean }>({ key: "rate", descending: true });
  const rows = useMemo(() => sortRows(edgeRows(topology), order.key, order.descending), [topology, order]);
  return (
    <div class="table-scroll panel">
      <table class="edges">
        <thead>
          <tr>
            {COLUMNS.map(([key, name]) => (
              <th
                key={key}
                scope="col"
                class={key === "source" || key === "destination" ? undefined : "number"}
                aria-sort={order.key === key ? (order.descending ? "descending" : "ascending") : undefined}
              >
                <button type="button" class="sorter" onClick={() => setOrder({ key, descending: order.key === key ? !order.descending : true })}>
                  {name}
                  <span aria-hidden="true" class="sort-mark">
                    {order.key === key ? (order.descending ? " ↓" : " ↑") : ""}
                  </span>
                </button>
              </th>
            ))}
            <th scope="col" class="number">Client requests</th>
            <th scope="col" class="number">Server requests</th>
            <th scope="col" class="number" title="Streams, gRPC calls and connections at the end of the range">Open</th>
            <th scope="col">Protocol</th>
          </tr>
        </thead>
        <tbody>
          {rows.map(({ edge, ...row }) => (
            <tr key={edge.id} class={edge.id === selected ? "is-picked" : undefined}>
              <th scope="row">
                <button type="button" class="link" onClick={() => onSelect(edge.source)}>
                  {row.source}
                </button>
              </th>
              <td>
                <button type="button" class="link" onClick={() => onSelect(edge.id)}>
                  {row.destination}
                </button>
              </td>
              <td class="number">{rate(row.rate)}</td>
              <td class="number">{percent(row.errors)}</td>
              <td class="number">{milliseconds((edge.server ?? edge.client)?.p50_ms)}</td>
              <td class="number">{milliseconds((edge.server ?? edge.client)?.p99_ms)}</td>
              <td class="number">{gapWords(gap(edge.client, edge.server, "p50_ms"))}</td>
              <td class="number">{cell(edge.client, (side) => count(side.requests))}</td>
              <td class="number">{cell(edge.server, (side) => count(side.requests))}</td>
              <td class="number">{count(edge.open)}</td>
              <td>{edge.protocol}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
