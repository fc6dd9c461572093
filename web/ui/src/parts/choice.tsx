// A few options side by side, one of them on.
interface ChoiceProps<T extends string> {
  label: string;
  value: T;
  options: readonly (readonly [T, string, string?])[];
  /** Shows the label in front; otherwise only assistive technology hears it. */
  isLabelled?: boolean;
  onChange(value: T): void;
}

export function Choice<T extends string>({ label, value, options, isLabelled = true, onChange }: ChoiceProps<T>) {
  return (
    <div class="choice" role="group" aria-label={label}>
      {isLabelled && <span class="choice-label" aria-hidden="true">{label}</span>}
      <span class="choice-options">
        {options.map(([option, text, title]) => (
          <button type="button" key={option} aria-pressed={option === value} title={title} onClick={() => onChange(option)}>
            {text}
          </button>
        ))}
      </span>
    </div>
  );
}
