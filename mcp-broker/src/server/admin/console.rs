//! The console: a page for operators, and the files that it is made of. Nothing is loaded from elsewhere.

use axum::Router;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::routing::get;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! files {
    ($($path:literal => $file:literal, $kind:ident;)*) => {
        /// Path, content type and text of each file.
        const FILES: &[(&str, &str, &str)] = &[
            $(($path, $kind, include_str!(concat!("../../../console/", $file))),)*
        ];
    };
}

files! {
    "/" => "index.html", HTML;
    "/console/icon.svg" => "icon.svg", SVG;
    "/console/base.css" => "base.css", CSS;
    "/console/layout.css" => "layout.css", CSS;
    "/console/parts.css" => "parts.css", CSS;
    "/console/main.js" => "main.js", JS;
    "/console/api.js" => "api.js", JS;
    "/console/dom.js" => "dom.js", JS;
    "/console/format.js" => "format.js", JS;
    "/console/table.js" => "table.js", JS;
    "/console/dialog.js" => "dialog.js", JS;
    "/console/keys.js" => "keys.js", JS;
    "/console/overview.js" => "overview.js", JS;
    "/console/agents.js" => "agents.js", JS;
    "/console/agent.js" => "agent.js", JS;
    "/console/action.js" => "action.js", JS;
    "/console/tasks.js" => "tasks.js", JS;
    "/console/task.js" => "task.js", JS;
    "/console/letters.js" => "letters.js", JS;
}

/// What every answer of the admin listener says to browsers: nothing but its own files is loaded or run,
/// nobody frames it, and nothing is kept.
pub(super) const HEADERS: [(HeaderName, &str); 6] = [
    (
        HeaderName::from_static("content-security-policy"),
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'",
    ),
    (HeaderName::from_static("x-content-type-options"), "nosniff"),
    (HeaderName::from_static("referrer-policy"), "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cache-control"), "no-store"),
];

pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.iter().fold(Router::new(), |router, &(path, kind, text)| {
        router.route(path, get(move || async move { ([(CONTENT_TYPE, kind)], text) }))
    })
}
