// One small time series chart, a line per version; all charts of a page share their cursor.
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { moment, trimZeros } from "../format";
import { theme } from "../theme";
import { axisEnds, loneWindows, tickLabels, type Series } from "./series";

/** A line for a version: newest first, told apart by dash and colour, and named in the legend. */
export interface LineStyle {
  stroke: string;
  dash: number[];
  width: number;
}

const LINES: Record<"light" | "dark", LineStyle[]> = {
  light: [
    { stroke: "#1d1f24", dash: [], width: 1.75 },
    { stroke: "#6b7280", dash: [6, 3], width: 1.5 },
    { stroke: "#0f766e", dash: [2, 2], width: 1.5 },
    { stroke: "#7c4fb0", dash: [8, 3, 2, 3], width: 1.5 },
    { stroke: "#9a6412", dash: [1, 3], width: 1.5 },
  ],
  dark: [
    { stroke: "#f3f2ef", dash: [], width: 1.75 },
    { stroke: "#9aa1ac", dash: [6, 3], width: 1.5 },
    { stroke: "#4cc2b6", dash: [2, 2], width: 1.5 },
    { stroke: "#b795e6", dash: [8, 3, 2, 3], width: 1.5 },
    { stroke: "#d6a04e", dash: [1, 3], width: 1.5 },
  ],
};

export function lineStyle(index: number): LineStyle {
  const lines = LINES[theme.value === "dark" ? "dark" : "light"];
  return lines[index % lines.length]!;
}

interface ChartProps {
  title: string;
  series: Series;
  format(value: number): string;
  height?: number;
}

/** Longer ranges name the day at every tick. */
const DAY = 86_400;

const SYNC = uPlot.sync("windows");

export function Chart({ title, series, format, height = 168 }: ChartProps) {
  const holder = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const tone = theme.value;
  const versions = series.versions.join("\n");
  const latest = useRef({ format });
  latest.current = { format };

  useEffect(() => {
    const element = holder.current!;
    const grid = tone === "dark" ? "#2a2e35" : "#e6e7ea";
    const ink = tone === "dark" ? "#a3a9b3" : "#5d636e";
    const font = "11px system-ui, sans-serif";
    const created = new uPlot(
      {
        width: Math.max(200, element.clientWidth),
        height,
        // Half a label's width: the last one is centred below the end of the axis.
        padding: [8, 36, 0, 0],
        cursor: { sync: { key: SYNC.key }, points: { size: 6 }, drag: { x: false, y: false } },
        legend: { live: true },
        scales: { x: { range: (plot) => axisEnds(plot.data[0]) }, y: { range: (_, __, high) => [0, high > 0 ? high * 1.12 : 1] } },
        axes: [
          { stroke: ink, font, grid: { show: false }, ticks: { show: false }, size: 26, space: (_, __, from, to) => (to - from > DAY ? 92 : 72), values: (_, splits) => tickLabels(splits) },
          { stroke: ink, font, grid: { stroke: grid, width: 1 }, ticks: { show: false }, size: 62, values: (_, splits) => splits.map((at) => trimZeros(latest.current.format(at))) },
        ],
        series: [
          { label: "Time", value: (_, at) => (at === null ? "" : moment(at * 1000)) },
          ...series.versions.map((version, index) => ({
            label: version,
            ...lineStyle(index),
            // A line needs two windows; one without neighbours would not be seen at all.
            points: { show: true, size: 6, filter: (plot: uPlot, at: number) => loneWindows(plot.data[at]!) },
            value: (_: uPlot, at: number | null) => (at === null ? "–" : latest.current.format(at)),
          })),
        ],
      },
      [series.x, ...series.columns] as uPlot.AlignedData,
      element,
    );
    plot.current = created;
    const observer = new ResizeObserver(() => created.setSize({ width: Math.max(200, element.clientWidth), height }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      created.destroy();
      plot.current = null;
    };
  }, [tone, versions, height]);

  useEffect(() => {
    plot.current?.setData([series.x, ...series.columns] as uPlot.AlignedData);
  }, [series]);

  return (
    <figure class="chart">
      <figcaption>{title}</figcaption>
      <div ref={holder} role="img" aria-label={describe(title, series, format)} />
    </figure>
  );
}

/** The chart's last values in words. */
function describe(title: string, series: Series, format: (value: number) => string): string {
  const last = series.versions.map((version, index) => {
    const value = series.columns[index]?.findLast((point) => point !== null) ?? null;
    return `${version} ${value === null ? "not reported" : format(value)}`;
  });
  return `${title} by version; latest: ${last.join(", ")}`;
}
