"""A client of the MCP wire protocol: proto/README.md, section 17.

    python client.py --state DIR upper --data hello
    python client.py --state DIR upper --data hello --count 1000 --idempotent
"""

import argparse
import asyncio
import sys
import time
import uuid

from lane import VERSION, Broker, Closed, Frame, backoff_s, error_pb2, session_pb2, task_pb2


def ended(outcome, executed, code, message):
    """An outcome that the client concludes itself."""
    error = error_pb2.Error(code=code, message=message)
    return task_pb2.Deliver(outcome=outcome, executed=executed, error=error)


def given_up(task):
    """The outcome of a task whose broker is gone (7.1)."""
    if task.is_written:
        return ended(task_pb2.OUTCOME_LOST, task_pb2.EXECUTED_MAYBE,
                     error_pb2.ERROR_CODE_BROKER_LOST, "the broker is gone")
    return ended(task_pb2.OUTCOME_EXPIRED, task_pb2.EXECUTED_NO,
                 error_pb2.ERROR_CODE_EXPIRED, "its time to live ran out without a broker")


class Task:
    def __init__(self, spec, body, ttl_s):
        self.spec, self.body = spec, body
        self.deadline = time.monotonic() + ttl_s
        self.is_written = False
        self.outcome = asyncio.get_running_loop().create_future()

    def end(self, deliver, body=b""):
        if not self.outcome.done():
            self.outcome.set_result((deliver, body))


class Client:
    """Sends tasks, over one connection after another. `async with` runs it."""

    def __init__(self, broker):
        self._broker = broker
        self._session_id = ""
        self._lane = None
        self._tasks = {}
        self._room = None

    async def __aenter__(self):
        ready = asyncio.get_running_loop().create_future()
        self._running = asyncio.create_task(self._run(ready))
        await ready
        return self

    async def __aexit__(self, *_):
        if self._lane:
            await self._lane.leave()
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    async def call(self, action, body, ttl_s=30.0, **fields):
        """The outcome of a task: a Deliver and its body. Cancelling this cancels the task."""
        await self._room.acquire()
        spec = task_pb2.Task(task_id=str(uuid.uuid4()), action=action, **fields)
        task = Task(spec, body, ttl_s)
        self._tasks[spec.task_id] = task
        try:
            if self._lane:
                self._write(task)
            # A broker tells of the deadline itself; this is for when there is none (7.1).
            async with asyncio.timeout(ttl_s + 5):
                return await asyncio.shield(task.outcome)
        except TimeoutError:
            return given_up(task), b""
        except asyncio.CancelledError:
            if self._lane and task.is_written:
                cancel = task_pb2.Cancel(task_id=spec.task_id, reason=task_pb2.CANCEL_REASON_CLIENT)
                self._lane.send(Frame(cancel=cancel))
            raise
        finally:
            del self._tasks[spec.task_id]
            self._room.release()

    def _write(self, task):
        ttl_ms = int((task.deadline - time.monotonic()) * 1000)
        if ttl_ms < 1:
            task.end(given_up(task))
            return
        max_bytes = self._lane.ack.limits.max_body_bytes
        if len(task.body) > max_bytes:
            task.end(ended(
                task_pb2.OUTCOME_REJECTED, task_pb2.EXECUTED_NO,
                error_pb2.ERROR_CODE_BODY_TOO_LARGE, f"a body has at most {max_bytes} bytes"))
            return
        task.is_written = True
        self._lane.send(Frame(send=task_pb2.Send(task=task.spec, ttl_ms=ttl_ms)), task.body)

    async def _run(self, ready):
        """Connects, and again when the connection breaks (7.3)."""
        attempt = 0
        while True:
            try:
                hello = session_pb2.Hello(
                    mcp_version=VERSION, roles=[session_pb2.ROLE_CLIENT],
                    sdk="mcp-example-python/1", session_id=self._session_id)
                async with self._broker.connect(hello) as lane:
                    attempt = 0
                    self._opened(lane)
                    if not ready.done():
                        ready.set_result(None)
                    await self._serve(lane)
            except Closed as closed:
                print(f"connection {closed}", file=sys.stderr)
                if closed.is_final or not ready.done():
                    self._give_up(ready, closed)
                    return
            except (ConnectionError, TimeoutError) as error:
                if not ready.done():
                    self._give_up(ready, error)
                    return
            finally:
                self._lane = None
            await asyncio.sleep(backoff_s(attempt))
            attempt += 1

    def _opened(self, lane):
        if self._room is None:
            self._room = asyncio.Semaphore(lane.ack.limits.max_session_tasks)
        self._session_id = lane.ack.session_id
        self._lane = lane
        for task_id, task in self._tasks.items():
            if task.is_written:
                lane.send(Frame(fetch=task_pb2.Fetch(task_id=task_id)))
            else:
                self._write(task)

    async def _serve(self, lane):
        watching = asyncio.create_task(lane.watch(lambda: bool(self._tasks)))
        try:
            async for frame, body in lane.frames():
                kind = frame.WhichOneof("kind")
                if kind == "deliver":
                    self._deliver(frame.deliver, body)
                elif kind == "status":
                    self._status(frame.status)
                elif kind == "error":
                    print(f"broker: {frame.error.message}", file=sys.stderr)
                elif kind == "goaway":
                    print(f"broker is leaving: {frame.goaway.message}", file=sys.stderr)
        finally:
            watching.cancel()

    def _deliver(self, deliver, body):
        task = self._tasks.get(deliver.task_id)
        if task is None:
            return
        is_stopping = deliver.error.code == error_pb2.ERROR_CODE_SHUTTING_DOWN
        if deliver.outcome == task_pb2.OUTCOME_REJECTED and is_stopping:
            # It was not executed: the next connection takes it (7.3).
            task.is_written = False
            return
        task.end(deliver, body)

    def _status(self, status):
        task = self._tasks.get(status.task_id)
        if task is None or status.state in (
            task_pb2.TASK_STATE_QUEUED, task_pb2.TASK_STATE_RUNNING):
            return
        if task.spec.idempotent:
            self._write(task)
        else:
            task.end(given_up(task))

    def _give_up(self, ready, error):
        if not ready.done():
            ready.set_exception(error)
        for task in self._tasks.values():
            task.end(given_up(task))


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action")
    parser.add_argument("--state", required=True, help="the broker's --state directory")
    parser.add_argument("--data", default="", help="the tasks' body")
    parser.add_argument("--ttl", type=float, default=30.0, help="seconds")
    parser.add_argument("--count", type=int, default=1, help="tasks to send at once")
    parser.add_argument("--idempotent", action="store_true")
    arguments = parser.parse_args()

    async with Client(Broker.from_state_dir(arguments.state)) as client:
        started = time.monotonic()
        ends = await asyncio.gather(*(
            client.call(arguments.action, arguments.data.encode(), arguments.ttl,
                        idempotent=arguments.idempotent)
            for _ in range(arguments.count)))
        elapsed_s = time.monotonic() - started

    outcomes = {}
    for deliver, _ in ends:
        name = task_pb2.Outcome.Name(deliver.outcome).removeprefix("OUTCOME_").lower()
        if deliver.HasField("error"):
            name += f"({error_pb2.ErrorCode.Name(deliver.error.code).removeprefix('ERROR_CODE_')})"
        outcomes[name] = outcomes.get(name, 0) + 1
    deliver, body = ends[0]
    sys.stdout.buffer.write(body)
    sys.stdout.flush()
    summary = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
    print(f"\n{summary} in {elapsed_s:.3f} s", file=sys.stderr)
    if deliver.error.message:
        print(deliver.error.message, file=sys.stderr)
    return 0 if set(outcomes) == {"ok"} else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
