//! Alerts that earlier versions stored are still read.

use emberline_model::comparison::FunctionRow;
use serde_json::json;

#[test]
fn functions_with_values_named_as_nanoseconds_are_read_and_written_with_their_new_names() {
    let stored = json!({
        "id": "00000000000000aa", "name": "shop::tax", "module": "", "library": false,
        "self_a_ns": 1, "self_b_ns": 2, "total_a_ns": 3, "total_b_ns": 4,
        "self_a": 0.1, "self_b": 0.2, "total_a": 0.3, "total_b": 0.4, "delta_self": 0.1, "delta_total": 0.1,
        "ratio": 1.5, "contribution": 1.0, "low": 0.0, "high": 0.2, "q_value": 0.01,
        "confidence": "strong", "state": "up",
    });
    let row: FunctionRow = serde_json::from_value(stored).unwrap();
    let raw = (row.raw_self_a, row.raw_self_b, row.raw_total_a, row.raw_total_b);
    assert_eq!(raw, (1, 2, 3, 4));
    let written = serde_json::to_value(&row).unwrap();
    assert_eq!((&written["raw_self_a"], written.get("self_a_ns")), (&json!(1), None));
    assert_eq!(serde_json::from_value::<FunctionRow>(written).unwrap(), row);
}
