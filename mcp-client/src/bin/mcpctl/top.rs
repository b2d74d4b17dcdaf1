//! `mcpctl top`: the broker, live.

mod columns;
mod draw;
mod screen;
mod source;
mod view;

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::Args;
use crossterm::event::{Event, EventStream};
use futures_util::StreamExt;
use mcp_client::{AgentInfo, Overview};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::exit::{self, Exit, Failure};
use crate::global::{Global, Output};
use crate::{agents, connect, parse, report, signals, status};
use screen::Screen;
use source::{Snapshot, Source};
use view::{Pressed, View};

const EXAMPLES: &str = "\
Examples:
  mcpctl top
  mcpctl --context prod top --interval 5s
  mcpctl top --once                       # what `mcpctl top | cat` prints, too

Keys:
  q, Ctrl-C    quit                       Tab          the other table
  left, right  sort by another column     r            the other way round
  up, down     scroll; also PgUp, PgDn, Home, End
  /            filter by name; Enter keeps it, Esc drops it
  p, space     pause                      ?, h         help";

/// Watch the broker live: what waits and how long, rates, times, agents and their load
///
/// Above is the broker: ready or not, tasks, rates, agents by state, and what needs a look. Below are its
/// actions, and, where there is room or after Tab, its agents. It is asked each second. WAIT is tasks that
/// wait for a worker, OLDEST how long the first of them has, IN/S, OK/S, ERR/S and REJ/S tasks a second over
/// 10 s, P50 and P99 from SEND to outcome in the last minute. Without a terminal, or with --once, all of it
/// is printed once. With `-o json`, {overview, agents} is, with agents null
/// where it may not be asked for them.
///
/// When the broker is lost it says so, shows what was last, and goes on when the broker is back.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(crate) struct Top {
    /// Print once, and end
    #[arg(long)]
    once: bool,

    /// How often the broker is asked, 200ms to 1h
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse::interval)]
    interval: Duration,
}

#[derive(Debug, Serialize)]
struct Once<'a> {
    overview: &'a Overview,
    /// None when it may not be asked for them.
    agents: Option<&'a [AgentInfo]>,
}

impl Top {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let endpoint = global.endpoint()?;
        let [interrupted] = signals::tokens()?;
        let address = endpoint.address().to_owned();
        let client = connect::client(endpoint.clone(), &interrupted).await?;
        let overview = connect::answer(client.overview(), &interrupted).await?;
        let agents = source::agents(&client, "").await;
        let snapshot = Snapshot { overview: Box::new(overview), agents };
        if self.once || global.output == Output::Json || !io::stdout().is_terminal() {
            client.close().await;
            print(&snapshot, &address, global.output)?;
            return Ok(Exit::Ok);
        }
        let source = Source::start(client, endpoint, self.interval);
        let view = View::new(address, snapshot);
        watch(view, source, &interrupted).await
    }
}

fn print(it: &Snapshot, address: &str, output: Output) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    if output == Output::Json {
        let agents = it.agents.as_ref().ok().map(|it| &it.agents[..]);
        let once = Once { overview: &it.overview, agents };
        writeln!(stdout, "{}", report::pretty(&once)?)?;
        return Ok(stdout.flush()?);
    }
    stdout.write_all(status::text(&it.overview, address, None).as_bytes())?;
    match &it.agents {
        Ok(list) if !list.agents.is_empty() => {
            writeln!(stdout, "\n{}", agents::table(&list.agents))?;
            if list.next.is_some() {
                writeln!(stdout, "{} of {}", list.agents.len(), list.matching)?;
            }
        }
        Ok(_) => {}
        Err(why) => writeln!(stdout, "\nagents: {why}")?,
    }
    Ok(stdout.flush()?)
}

/// Draws what there is, as it changes, until somebody quits.
async fn watch(
    mut view: View,
    mut source: Source,
    interrupted: &CancellationToken,
) -> Result<Exit, Failure> {
    let mut screen = Screen::open()?;
    let mut events = EventStream::new();
    loop {
        view.tick(Instant::now());
        screen.draw(|frame| draw::draw(frame, &mut view))?;
        tokio::select! {
            () = interrupted.cancelled() => break,
            event = events.next() => match event {
                Some(Ok(Event::Key(key))) => match view.press(key) {
                    Pressed::Quit => break,
                    Pressed::Filter => source.filter(view.filter()),
                    Pressed::Other => {}
                },
                // Such as another size: it is drawn anew.
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break,
            },
            update = source.next() => match update {
                Some(update) => view.take(update, Instant::now()),
                // The panic has been told, and the terminal is not to be drawn on any more.
                None => return Err(Failure::new(Exit::Failed, "")),
            },
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
    drop(screen);
    source.close().await;
    match interrupted.is_cancelled() {
        true => Err(Failure::cancelled()),
        false => Ok(Exit::Ok),
    }
}
