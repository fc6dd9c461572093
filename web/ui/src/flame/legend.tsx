// What the colours mean; always on screen beside a diff.
import { theme } from "../theme";
import { fillsOf, PALETTES, shadeOfShare } from "./palette";

const SAMPLES = [-1, -0.5, -0.15, 0, 0.15, 0.5, 1];

export function FlameLegend() {
  const palette = PALETTES[theme.value];
  const fills = fillsOf(palette);
  return (
    <div class="legend" role="group" aria-label="Legend of the flame graph">
      <span class="legend-item">
        <span aria-hidden="true">▼</span>
        <span>less</span>
        <span class="legend-ramp" aria-hidden="true">
          {SAMPLES.map((share) => (
            <i key={share} style={{ background: fills[shadeOfShare(share)]! }} />
          ))}
        </span>
        <span>more</span>
        <span aria-hidden="true">▲</span>
      </span>
      <span class="legend-item">share of the total change</span>
            <span class="legend-item">
        <i class="swatch" style={{ background: palette.unsure }} aria-hidden="true" /> not significant
      </span>
      <span class="legend-item">
        <i class="swatch swatch-new" style={{ background: palette.fresh, color: palette.text }} aria-hidden="true" /> new
      </span>
      <span class="legend-item">
        <i class="swatch swatch-gone" style={{ background: palette.less }} aria-hidden="true" /> gone
      </span>
    </div>
  );
}
