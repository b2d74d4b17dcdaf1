//! Who may do what: deny wins, what nobody allowed is denied, and what is somebody else's is theirs.

use mcp_broker::broker::{AccessPolicy, ConnectionId, Disconnect, Event, Identity};
use mcp_proto::{
    ActionName, Delivery, ErrorCode, Executed, Hello, Message, Outcome, Priority, Task, WorkerHello,
};
use serde_json::{Value, json};

use crate::fixture::{Fixture, child_of, client_hello, idempotent, task, task_id, worker_hello};
use crate::operator::Operator;

const POLICY: &str = r#"
    [roles.shop]
    members = ["shop-*"]
    allow = { send = ["work", "text/*"], tenants = ["", "shop"], priority = "high" }
    deny = { send = ["text/secret"] }

    [roles.gpu]
    members = ["gpu"]
    allow = { serve = ["work"], agent_ids = ["gpu-*"] }

    [roles.operator]
    allow = { admin = ["*"] }
    deny = { admin = ["dead_letters.*"] }
"#;

fn roles(text: &str) -> AccessPolicy {
    AccessPolicy::Roles(toml::from_str(text).unwrap())
}

fn with(policy: AccessPolicy) -> Fixture {
    let mut it = Fixture::with(|config| config.is_durable = true);
    it.core.set_policy(it.now, policy);
    it
}

/// A connection of an identity whose token names roles.
fn connect(it: &mut Fixture, identity: &str, roles: &[&str]) -> ConnectionId {
    let id = it.connect();
    let roles = roles.iter().map(|role| (*role).into()).collect();
    it.core.handle_authenticated(id, &Identity::new(identity), roles);
    id
}

fn client(it: &mut Fixture, identity: &str, roles: &[&str]) -> ConnectionId {
    let id = connect(it, identity, roles);
    it.give(id, Message::Hello(Box::new(client_hello(None))));
    it.expect_ack(id);
    id
}

fn hello_of(worker: WorkerHello) -> Message {
    let hello = Hello { client: false, worker: Some(worker), ..client_hello(None) };
    Message::Hello(Box::new(hello))
}

fn worker(it: &mut Fixture, identity: &str, name: &str) -> ConnectionId {
    let id = connect(it, identity, &[]);
    it.give(id, hello_of(worker_hello(name, 1)));
    it.expect_ack(id);
    id
}

/// What HELLO of a worker is refused with.
fn refused(it: &mut Fixture, identity: &str, worker: WorkerHello) -> (ErrorCode, String) {
    let id = connect(it, identity, &[]);
    it.give(id, hello_of(worker));
    let error = it.expect_refusal(id);
    (error.code, error.message)
}

fn of_action(action: &str) -> Task {
    Task { action: ActionName::try_from(action).unwrap(), ..task("t") }
}

/// Why a task is not taken.
fn denied(it: &mut Fixture, client: ConnectionId, task: Task) -> String {
    let id = task.id.to_string();
    it.send_task(client, task, 60_000);
    let deliver = it.expect_deliver(client, &id);
    let error = deliver.error.unwrap();
    assert_eq!((deliver.outcome, deliver.executed), (Outcome::Rejected, Executed::No));
    assert_eq!(error.code, ErrorCode::Forbidden, "{error}");
    error.message
}

/// It is taken, and found to have no worker.
fn taken(it: &mut Fixture, client: ConnectionId, task: Task) {
    let id = task.id.to_string();
    it.send_task(client, task, 1_000);
    it.advance(1_000);
    assert_eq!(it.expect_end(client, &id).2, Some(ErrorCode::NoWorker));
}

fn function_denied(it: &mut Fixture, client: ConnectionId, action: &str, body: &Value) -> String {
    let (deliver, _) = Operator(client).ask(it, action, body);
    let error = deliver.error.unwrap();
    assert_eq!((deliver.outcome, error.code), (Outcome::Failed, ErrorCode::Forbidden), "{error}");
    error.message
}

#[test]
fn without_a_policy_everybody_may_do_everything() {
    let mut it = with(AccessPolicy::Open);
    let (client, _) = (client(&mut it, "anybody", &[]), worker(&mut it, "nobody", "w"));
    taken(&mut it, client, of_action("other"));
    assert!(Operator(client).answer(&mut it, "mcp.admin.stats", &json!({})).is_object());
}

#[test]
fn an_action_that_nobody_allowed_is_denied_and_deny_wins() {
    let mut it = with(roles(POLICY));
    let shop = client(&mut it, "shop-1", &[]);
    taken(&mut it, shop, of_action("work"));
    taken(&mut it, shop, of_action("text/upper"));
    let message = denied(&mut it, shop, of_action("other"));
    assert!(message.contains("shop-1 may not send tasks of action other"), "{message}");
    assert!(message.contains("(shop) has \"other\" in allow.send"), "{message}");
    let message = denied(&mut it, shop, of_action("text/secret"));
    assert!(message.contains("role shop of the policy denies it (deny.send)"), "{message}");
    // One without any role, and the one that proved nothing.
    let stranger = client(&mut it, "stranger", &[]);
    let message = denied(&mut it, stranger, of_action("work"));
    assert!(message.contains("it has no role in the policy"), "{message}");
    let anonymous = it.client();
    denied(&mut it, anonymous, of_action("work"));
    let is_denial = |event: &&Event| matches!(event, Event::Denied { .. });
    assert_eq!(it.events.iter().filter(is_denial).count(), 4);
}

#[test]
fn whatever_a_task_is_it_needs_the_permission() {
    let mut it = with(roles(POLICY));
    let (shop, gpu) = (client(&mut it, "shop-1", &[]), worker(&mut it, "gpu", "gpu-1"));
    let durable = Task { delivery: Delivery::Durable, ..of_action("other") };
    denied(&mut it, shop, durable);
    denied(&mut it, shop, Task { idempotent: true, ..of_action("other") });
    denied(&mut it, shop, Task { shadow: true, ..of_action("other") });
    // A child of a task that runs.
    it.send(shop, "parent");
    let parent = it.expect_route(gpu).attempt_id;
    denied(&mut it, shop, Task { parent: Some(task_id("parent")), ..of_action("other") });
    // The worker has a session besides: what its handlers send are its own tasks.
    let handler = client(&mut it, "gpu", &[]);
    denied(&mut it, handler, child_of("parent", "child"));
    it.result(gpu, parent);
    it.expect_end(shop, "parent");
}

#[test]
fn tenant_priority_and_explanation_are_permissions() {
    let mut it = with(roles(POLICY));
    let shop = client(&mut it, "shop-1", &[]);
    taken(&mut it, shop, Task { tenant: "shop".into(), ..task("a") });
    let message = denied(&mut it, shop, Task { tenant: "bank".into(), ..task("b") });
    assert!(message.contains("\"bank\" in allow.tenants"), "{message}");
    taken(&mut it, shop, Task { priority: Priority::High, ..task("c") });
    let message = denied(&mut it, shop, Task { priority: Priority::Urgent, ..task("d") });
    assert!(message.contains("priority urgent, high at most"), "{message}");
    // The explanation tells of workers.
    let message = denied(&mut it, shop, Task { explain: true, ..task("e") });
    assert!(message.contains("mcp.admin.explain"), "{message}");

    // One that lists tenants has to name one; one that lists none must not.
    let listed = r#"
        [roles.a]
        members = ["a"]
        allow = { send = ["*"], tenants = ["one", "two"] }
        [roles.b]
        members = ["b"]
        allow = { send = ["*"], priority = "low" }
    "#;
    it.core.set_policy(it.now, roles(listed));
    let (a, b) = (client(&mut it, "a", &[]), client(&mut it, "b", &[]));
    let message = denied(&mut it, a, task("f"));
    assert!(message.contains("that name no tenant"), "{message}");
    taken(&mut it, a, Task { tenant: "two".into(), ..task("g") });
    denied(&mut it, b, Task { tenant: "two".into(), ..task("h") });
    denied(&mut it, b, task("i"));
    taken(&mut it, b, Task { priority: Priority::Low, ..task("j") });
}

#[test]
fn a_worker_serves_what_it_may_under_a_name_that_it_may_have() {
    let mut it = with(roles(POLICY));
    let other = |action: &str| {
        let actions = ["work", action].map(|it| ActionName::try_from(it).unwrap()).into();
        WorkerHello { actions, ..worker_hello("gpu-1", 1) }
    };
    let (code, message) = refused(&mut it, "gpu", other("other"));
    assert_eq!(code, ErrorCode::Forbidden);
    assert!(message.contains("gpu may not serve action other"), "{message}");
    assert!(message.contains("\"other\" in allow.serve"), "{message}");
    let (code, message) = refused(&mut it, "gpu", worker_hello("cpu-1", 1));
    assert_eq!(code, ErrorCode::Forbidden);
    assert!(message.contains("\"cpu-1\" in allow.agent_ids"), "{message}");
    let (code, _) = refused(&mut it, "shop-1", worker_hello("gpu-1", 1));
    assert_eq!(code, ErrorCode::Forbidden);
    // Both roles of a connection are refused then.
    let both = connect(&mut it, "shop-1", &[]);
    let hello = Hello { worker: Some(worker_hello("gpu-1", 1)), ..client_hello(None) };
    it.give(both, Message::Hello(Box::new(hello)));
    assert_eq!(it.expect_refusal(both).code, ErrorCode::Forbidden);
    assert!(it.online().is_empty());
    worker(&mut it, "gpu", "gpu-1");
    assert_eq!(it.online(), ["gpu-1"]);
}

#[test]
fn a_name_is_its_identitys_whether_that_is_there_or_not() {
    let mut it = with(AccessPolicy::Authenticated);
    let first = worker(&mut it, "first", "w");
    let steal = |it: &mut Fixture| refused(it, "second", worker_hello("w", 1)).0;
    assert_eq!(steal(&mut it), ErrorCode::IdentityMismatch);
    it.disconnect(first, Disconnect::Broken);
    assert_eq!(steal(&mut it), ErrorCode::IdentityMismatch);
    // Its registration is over.
    it.advance(60_000);
    assert!(it.core.agents(it.now, true).is_empty());
    assert_eq!(steal(&mut it), ErrorCode::IdentityMismatch);
    let again = worker(&mut it, "first", "w");
    it.disconnect(again, Disconnect::Orderly);
    assert_eq!(steal(&mut it), ErrorCode::IdentityMismatch);
    it.advance(24 * 60 * 60 * 1000);
    worker(&mut it, "second", "w");
}

#[test]
fn names_that_are_remembered_are_bounded() {
    let mut it = Fixture::with(|config| config.max_agents = 2);
    for name in ["a", "b", "b", "b", "c"] {
        let worker = worker(&mut it, "first", name);
        it.disconnect(worker, Disconnect::Orderly);
    }
    // The oldest was forgotten; one that came and went did not push out another.
    worker(&mut it, "second", "a");
    for name in ["b", "c"] {
        assert_eq!(
            refused(&mut it, "second", worker_hello(name, 1)).0,
            ErrorCode::IdentityMismatch
        );
    }
}

#[test]
fn of_tasks_one_sees_and_cancels_its_own_without_the_right() {
    let mut it = with(roles(POLICY));
    let (one, two) = (client(&mut it, "shop-1", &[]), client(&mut it, "shop-2", &[]));
    it.core.set_policy(it.now, roles(POLICY));
    let gpu = worker(&mut it, "gpu", "gpu-1");
    it.send(one, "ended");
    let attempt = it.expect_route(gpu).attempt_id;
    it.result(gpu, attempt);
    it.expect_end(one, "ended");
    it.send(one, "runs");
    let attempt = it.expect_route(gpu).attempt_id;
    it.send(one, "waits");
    it.send(two, "waits");
    it.expect_nothing();

    let listed = |it: &mut Fixture, client, filter: Value| {
        let answer = Operator(client).answer(it, "mcp.admin.tasks.list", &filter);
        let tasks = answer["tasks"].as_array().unwrap().iter();
        let names: Vec<_> = tasks
            .map(|it| {
                format!("{}/{}", it["identity"].as_str().unwrap(), it["task_id"].as_str().unwrap())
            })
            .collect();
        names.join(" ")
    };
    let admin = client(&mut it, "ann", &["operator"]);
    let all = "shop-2/waits shop-1/waits shop-1/runs shop-1/ended";
    assert_eq!(listed(&mut it, admin, json!({})), all);
    assert_eq!(listed(&mut it, one, json!({})), "shop-1/waits shop-1/runs shop-1/ended");
    assert_eq!(listed(&mut it, two, json!({})), "shop-2/waits");
    assert_eq!(listed(&mut it, two, json!({"status": "running"})), "");
    assert_eq!(listed(&mut it, two, json!({"agent": "gpu-1"})), "");
    assert_eq!(listed(&mut it, two, json!({"status": "ok"})), "");

    let show = |it: &mut Fixture, client, id: &str, identity: Option<&str>| {
        let body = json!({ "task_id": id, "identity": identity });
        let shown = Operator(client).answer(it, "mcp.admin.tasks.show", &body);
        shown["identity"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(show(&mut it, two, "waits", None), "shop-2");
    assert_eq!(show(&mut it, two, "waits", Some("shop-1")), "");
    assert_eq!(show(&mut it, two, "runs", None), "");
    assert_eq!(show(&mut it, two, "ended", None), "");
    assert_eq!(show(&mut it, admin, "runs", None), "shop-1");

    let cancel = |it: &mut Fixture, client, body: Value| {
        Operator(client).answer(it, "mcp.admin.tasks.cancel", &body)
    };
    assert!(cancel(&mut it, two, json!({"task_id": "runs"})).is_null());
    let other = json!({"task_id": "waits", "identity": "shop-1"});
    assert!(cancel(&mut it, two, other).is_null());
    let also_two = client(&mut it, "shop-2", &[]);
    assert_eq!(cancel(&mut it, also_two, json!({"task_id": "waits"}))["cancelled"], true);
    assert_eq!(it.expect_end(two, "waits").0, Outcome::Cancelled);
    // By frame, neither.
    it.give(two, Message::Cancel(mcp_proto::Cancel::Task(task_id("runs"))));
    it.expect_nothing();
    it.result(gpu, attempt);
    assert_eq!(it.expect_end(one, "runs").0, Outcome::Ok);
    let attempt = it.expect_route(gpu).attempt_id;
    it.result(gpu, attempt);
    it.expect_end(one, "waits");
}

#[test]
fn what_concerns_all_is_for_operators() {
    let mut it = with(roles(POLICY));
    let (shop, ann) =
        (client(&mut it, "shop-1", &[]), client(&mut it, "ann", &["operator", "ghost"]));
    for (function, body) in [
        ("stats", json!({})),
        ("agents.list", json!({})),
        ("actions.list", json!({})),
        ("explain", json!({"action": "work"})),
        ("actions.show", json!({"action": "work"})),
        ("actions.set", json!({"action": "work", "rules": {}})),
        ("actions.reset", json!({"action": "work"})),
        ("actions.degrade", json!({"action": "work"})),
        ("actions.restore", json!({"action": "work"})),
        ("overview", json!({})),
        ("agents.show", json!({"agent_id": "gpu-1"})),
        ("agents.drain", json!({"agent_id": "gpu-1"})),
        ("agents.resume", json!({"agent_id": "gpu-1"})),
    ] {
        let action = format!("mcp.admin.{function}");
        let message = function_denied(&mut it, shop, &action, &body);
        assert!(message.contains(&format!("{function:?} in allow.admin")), "{message}");
        let (deliver, _) = Operator(ann).ask(&mut it, &action, &body);
        assert_ne!(deliver.error.map(|error| error.code), Some(ErrorCode::Forbidden));
    }
    // Deny wins, over what is one's own as well.
    let named = json!({"task_id": "t"});
    for function in ["list", "show", "replay", "drop"] {
        let action = format!("mcp.admin.dead_letters.{function}");
        let body = if function == "list" { json!({}) } else { named.clone() };
        let message = function_denied(&mut it, ann, &action, &body);
        assert!(
            message.contains("role operator of the policy denies it (deny.admin)"),
            "{message}"
        );
    }
    let message = denied(&mut it, ann, task("t"));
    assert!(message.contains("none of its roles (operator)"), "{message}");
}

#[test]
fn dead_letters_and_their_inputs_are_their_identitys() {
    let mut it = with(roles(POLICY));
    let (one, two) = (client(&mut it, "shop-1", &[]), client(&mut it, "shop-2", &[]));
    let gpu = worker(&mut it, "gpu", "gpu-1");
    it.send_task(one, Task { delivery: Delivery::Durable, ..task("t") }, 60_000);
    let attempt = it.expect_route(gpu).attempt_id;
    it.fail(gpu, attempt);
    let last = it.records.last().unwrap().0;
    it.core.journal_synced(it.now, last);
    it.collect();
    it.next_for(one).unwrap();
    it.expect_end(one, "t");

    let ask = |it: &mut Fixture, client, function: &str, body: Value| {
        Operator(client).answer(it, &format!("mcp.admin.dead_letters.{function}"), &body)
    };
    let named = || json!({"task_id": "t"});
    assert_eq!(ask(&mut it, one, "list", json!({}))["dead_letters"].as_array().unwrap().len(), 1);
    assert_eq!(ask(&mut it, two, "list", json!({}))["dead_letters"], json!([]));
    assert_eq!(ask(&mut it, one, "show", named())["body"], "input");
    for function in ["show", "replay", "drop"] {
        assert!(ask(&mut it, two, function, named()).is_null());
        let others = json!({"task_id": "t", "identity": "shop-1"});
        assert!(ask(&mut it, two, function, others).is_null());
    }
    // Replaying is sending: one that may not send any more may not replay either.
    it.core.set_policy(it.now, roles("[roles.shop]\nmembers = ['shop-*']"));
    it.discard();
    let message = function_denied(&mut it, one, "mcp.admin.dead_letters.replay", &named());
    assert!(message.contains("may not send tasks of action work"), "{message}");
    it.core.set_policy(it.now, roles(POLICY));
    assert_eq!(ask(&mut it, one, "replay", named())["replayed"], true);
    it.discard();
}

#[test]
fn roles_come_from_the_policy_and_from_the_token() {
    let mut it = with(roles(POLICY));
    let named = client(&mut it, "somebody", &["shop"]);
    taken(&mut it, named, task("t"));
    // What a resumed session may do is what its new connection's token says.
    let first = connect(&mut it, "somebody", &["shop"]);
    it.give(first, Message::Hello(Box::new(client_hello(Some("s")))));
    it.expect_ack(first);
    it.disconnect(first, Disconnect::Broken);
    let second = connect(&mut it, "somebody", &[]);
    it.give(second, Message::Hello(Box::new(client_hello(Some("s")))));
    assert!(it.expect_ack(second).resumed);
    denied(&mut it, second, task("u"));
}

#[test]
fn a_new_policy_is_in_force_at_once_and_what_was_taken_goes_on() {
    let mut it = with(roles(POLICY));
    let (shop, gpu) = (client(&mut it, "shop-1", &[]), worker(&mut it, "gpu", "gpu-1"));
    it.send(shop, "runs");
    let attempt = it.expect_route(gpu).attempt_id;
    it.send(shop, "waits");
    it.core.set_policy(
        it.now,
        roles("[roles.gpu]\nmembers = ['gpu']\nallow.serve = ['work']\nallow.agent_ids = ['*']"),
    );
    denied(&mut it, shop, task("new"));
    // Its own, which it sent before.
    it.send(shop, "runs");
    it.expect_nothing();
    it.result(gpu, attempt);
    assert_eq!(it.expect_end(shop, "runs").0, Outcome::Ok);
    let attempt = it.expect_route(gpu).attempt_id;
    it.result(gpu, attempt);
    assert_eq!(it.expect_end(shop, "waits").0, Outcome::Ok);
    // It has ended: the outcome is its own.
    it.send(shop, "runs");
    assert_eq!(it.expect_end(shop, "runs").0, Outcome::Ok);
}

#[test]
fn a_worker_that_may_no_longer_serve_is_sent_away() {
    let mut it = with(roles(POLICY));
    let shop = client(&mut it, "shop-1", &[]);
    let gpu = worker(&mut it, "gpu", "gpu-1");
    it.send_task(shop, idempotent("again"), 60_000);
    let attempt = it.expect_route(gpu).attempt_id;
    let other = r#"
        [roles.other]
        members = ["other"]
        allow = { serve = ["work"], agent_ids = ["*"] }
        [roles.shop]
        members = ["shop-*"]
        allow = { send = ["work"] }
    "#;
    let spare = {
        it.core.set_policy(it.now, roles(&format!("{other}\n[roles.gpu]\nmembers = ['gpu']\nallow = {{ serve = ['*'], agent_ids = ['*'] }}")));
        worker(&mut it, "other", "spare")
    };
    it.core.set_policy(it.now, roles(other));
    it.collect();
    let goaway = it.expect_goaway(gpu);
    assert_eq!((goaway.code, goaway.reconnect), (ErrorCode::Forbidden, true));
    assert!(goaway.message.contains("gpu may not"), "{}", goaway.message);
    assert_eq!(it.expect_close(gpu), Some(ErrorCode::Forbidden));
    assert_eq!(it.online(), ["spare"]);
    // What it held goes on elsewhere, and its own RESULT is nothing any more.
    it.result(gpu, attempt);
    let attempt = it.expect_route(spare).attempt_id;
    it.result(spare, attempt);
    assert_eq!(it.expect_end(shop, "again").0, Outcome::Ok);
    assert_eq!(refused(&mut it, "gpu", worker_hello("gpu-1", 1)).0, ErrorCode::Forbidden);
}

#[test]
fn where_there_is_no_policy_operators_are_those_whose_token_says_so() {
    let mut it = with(AccessPolicy::Authenticated);
    let (ann, bob) = (client(&mut it, "ann", &["operator"]), client(&mut it, "bob", &["other"]));
    taken(&mut it, bob, Task { tenant: "any".into(), priority: Priority::Urgent, ..task("t") });
    let message = function_denied(&mut it, bob, "mcp.admin.stats", &json!({}));
    assert!(message.contains("token does not name the role operator"), "{message}");
    let own = Operator(bob).answer(&mut it, "mcp.admin.tasks.list", &json!({}));
    assert_eq!(own["tasks"].as_array().unwrap().len(), 1);
    assert!(Operator(ann).answer(&mut it, "mcp.admin.stats", &json!({})).is_object());
    worker(&mut it, "anybody", "w");
}

#[test]
fn a_proof_that_no_longer_holds_ends_the_connection() {
    let mut it = with(AccessPolicy::Authenticated);
    let gpu = worker(&mut it, "gpu", "w");
    it.core.handle_unauthenticated(it.now, gpu, "its token has expired".into());
    it.collect();
    let error = it.expect_refusal(gpu);
    assert_eq!(error.code, ErrorCode::Unauthenticated);
    assert!(error.message.contains("has expired"));
    // It is lost as with any broken connection, and may come back.
    it.give(gpu, hello_of(worker_hello("w", 1)));
    it.expect_nothing();
    worker(&mut it, "gpu", "w");
}

#[test]
fn a_policy_is_read_strictly() {
    for wrong in [
        "[roles.a]\nmember = ['x']",
        "[roles.a]\nallow.sends = ['x']",
        "[roles.a]\ndeny.priority = 'low'",
        "[roles.a]\nallow.priority = 'highest'",
        "[role.a]",
    ] {
        assert!(toml::from_str::<mcp_broker::broker::Roles>(wrong).is_err(), "{wrong}");
    }
    let long = format!("[roles.a]\nmembers = ['{}']", "x".repeat(257));
    assert!(toml::from_str::<mcp_broker::broker::Roles>(&long).is_err());
    let many = format!("[roles.a]\nallow.send = [{}]", "'x',".repeat(1_001));
    let (key, problem) =
        toml::from_str::<mcp_broker::broker::Roles>(&many).unwrap().check().unwrap_err();
    assert_eq!(key, "roles.a.allow.send");
    assert!(problem.contains("1000"), "{problem}");
}
