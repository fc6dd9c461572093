//! The current-label word: set, hidden, restored. No profiler runs here.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use emberline_profiler::{Label, Labeled, LabeledBy, TaskLabel, current_label, scope};
use proptest::prelude::*;

const A: Label = Label::new(1);
const B: Label = Label::new(2);
const C: Label = Label::new(3);

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A future that calls `step` at each poll, forever.
fn each_poll(mut step: impl FnMut()) -> impl Future<Output = ()> {
    poll_fn(move |_| {
        step();
        Poll::Pending
    })
}

#[test]
fn a_label_lasts_exactly_as_long_as_the_poll() {
    let mut future = pin!(Labeled::new(A, each_poll(|| assert_eq!(current_label(), A))));
    for _ in 0..3 {
        assert!(poll_once(future.as_mut()).is_pending());
        assert_eq!(current_label(), Label::NONE);
    }
}

#[test]
fn an_inner_label_hides_the_outer_one_and_gives_it_back() {
    let inner = Labeled::new(B, async { current_label() });
    let outer = Labeled::new(A, async {
        let within = inner.await;
        (within, current_label())
    });
    assert_eq!(poll_once(pin!(outer)), Poll::Ready((B, A)));
    assert_eq!(current_label(), Label::NONE);
}

#[test]
fn a_panic_restores_the_label() {
    let _outer = scope(C);
    let task_label = TaskLabel::new(B);
    let mut future = pin!(Labeled::new(
        A,
        LabeledBy::new(task_label, each_poll(|| panic!("on purpose")))
    ));
    assert!(catch_unwind(AssertUnwindSafe(|| poll_once(future.as_mut()))).is_err());
    assert_eq!(current_label(), C);
}

#[test]
fn setting_a_task_label_shows_at_once_and_sticks_to_the_task() {
    let task_label = TaskLabel::new(A);
    let handle = task_label.clone();
    let mut polls = 0;
    let connection = each_poll(move || {
        polls += 1;
        if polls == 1 {
            assert_eq!(current_label(), A);
            handle.set(B);
        }
        assert_eq!(current_label(), B);
    });
    let mut connection = pin!(LabeledBy::new(task_label.clone(), connection));
    for _ in 0..3 {
        assert!(poll_once(connection.as_mut()).is_pending());
        assert_eq!(current_label(), Label::NONE, "another task must not inherit the label");
    }
    assert_eq!(task_label.get(), B);
}

#[test]
fn setting_a_task_label_outside_its_poll_changes_no_other_work() {
    let task_label = TaskLabel::new(A);
    let _other = scope(C);
    task_label.set(B);
    assert_eq!(current_label(), C);
    let mut future = pin!(LabeledBy::new(
        TaskLabel::new(A),
        each_poll(|| {
            task_label.set(C);
            assert_eq!(current_label(), A);
        })
    ));
    assert!(poll_once(future.as_mut()).is_pending());
}

#[test]
fn a_task_label_set_under_an_inner_label_shows_when_that_ends() {
    let task_label = TaskLabel::new(A);
    let handle = task_label.clone();
    let future = LabeledBy::new(task_label, async move {
        Labeled::new(C, async {
            handle.set(B);
            assert_eq!(current_label(), C);
        })
        .await;
        let in_inner = {
            let _guard = scope(C);
            handle.set(A);
            current_label()
        };
        (in_inner, current_label())
    });
    assert_eq!(poll_once(pin!(future)), Poll::Ready((C, A)));
}

#[test]
fn a_guard_that_outlives_its_poll_brings_nothing_back() {
    let mut kept = None;
    {
        let future = LabeledBy::new(TaskLabel::new(A), async { kept = Some(scope(B)) });
        assert!(poll_once(pin!(future)).is_ready());
    }
    assert_eq!(current_label(), Label::NONE);
    let _now = scope(C);
    drop(kept);
    assert_eq!(current_label(), C);
}

#[derive(Clone, Debug)]
enum Step {
    Scope(u32, Vec<Step>),
    Labeled(u32, Vec<Step>),
    Task(u32, Vec<Step>),
    Set(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let leaf = (1_u32..100).prop_map(Step::Set);
    let step = leaf.prop_recursive(5, 40, 4, |inner| {
        let body = prop::collection::vec(inner, 0..4);
        prop_oneof![
            (1_u32..100, body.clone()).prop_map(|(label, body)| Step::Scope(label, body)),
            (1_u32..100, body.clone()).prop_map(|(label, body)| Step::Labeled(label, body)),
            (1_u32..100, body).prop_map(|(label, body)| Step::Task(label, body)),
        ]
    });
    prop::collection::vec(step, 0..5)
}

/// Plays the steps; `label` must be current, and `task` is the innermost task label.
fn play(steps: &[Step], label: u32, task: Option<&TaskLabel>, is_of_task: bool) {
    let mut label = label;
    for step in steps {
        match step {
            Step::Set(new) => {
                if let Some(task) = task {
                    task.set(Label::new(*new));
                    if is_of_task {
                        label = *new;
                    }
                }
            }
            Step::Scope(inner, body) => {
                let _guard = scope(Label::new(*inner));
                play(body, *inner, task, false);
            }
            Step::Labeled(inner, body) => {
                let future = Labeled::new(Label::new(*inner), async { play(body, *inner, task, false) });
                assert!(poll_once(pin!(future)).is_ready());
            }
            Step::Task(inner, body) => {
                let own = TaskLabel::new(Label::new(*inner));
                let future = LabeledBy::new(own.clone(), async { play(body, *inner, Some(&own), true) });
                assert!(poll_once(pin!(future)).is_ready());
            }
        }
        if is_of_task && let Some(task) = task {
            label = task.get().get();
        }
        assert_eq!(current_label().get(), label);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any nesting of sections, against a model of what must be current.
    #[test]
    fn any_nesting_restores_what_it_hid(steps in steps()) {
        play(&steps, 0, None, false);
        prop_assert_eq!(current_label(), Label::NONE);
    }
}
