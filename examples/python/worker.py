"""A worker of the MCP wire protocol: proto/README.md, section 18.

    python worker.py --state DIR --slots 4

It serves `upper`, `reverse`, `sleep` (body: seconds), `fail` and `crash`.
"""

import argparse
import asyncio
import signal
import sys
import time
import uuid

from lane import VERSION, Broker, Closed, Frame, backoff_s, error_pb2, session_pb2, task_pb2

MAX_UNCONFIRMED = 256


class HandlerError(Exception):
    """A handler's own error, for the client."""


async def upper(body):
    return body.decode().upper().encode()


async def reverse(body):
    return body.decode()[::-1].encode()


async def sleep(body):
    await asyncio.sleep(float(body))
    return b"slept " + body


async def fail(body):
    raise HandlerError("this action always fails")


async def crash(body):
    return body[10**9]


HANDLERS = {"upper": upper, "reverse": reverse, "sleep": sleep, "fail": fail, "crash": crash}


class Attempt:
    """An attempt that this worker holds, until its RESULT is confirmed (8.2)."""

    def __init__(self, route, body):
        self.route, self.body = route, body
        self.arrived = time.monotonic()
        self.started = None
        self.timeout = None
        self.cancelled = None  # The reason of a CANCEL.
        self.is_abandoned = False
        self.handler = None
        self.result = None  # (Result, body) once it is finished.


class Worker:
    def __init__(self, broker, agent_id, slots, handlers):
        self._broker, self._handlers, self._slots = broker, handlers, slots
        self._agent_id, self._instance_id = agent_id, str(uuid.uuid4())
        self._attempts = {}
        self._readiness = session_pb2.READINESS_READY
        self._lane = None
        self._lane_limits = None
        self._is_leaving = False
        self._routes_received = 0
        self._unconfirmed = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    async def run(self):
        """Serves, over one connection after another, until drained or told not to come back."""
        attempt = 0
        while True:
            try:
                async with self._broker.connect(self._hello()) as lane:
                    attempt = 0
                    self._opened(lane)
                    print(f"registered as {lane.ack.node_id}", file=sys.stderr, flush=True)
                    await self._serve(lane)
            except Closed as closed:
                print(f"connection {closed}", file=sys.stderr, flush=True)
                if closed.is_final and not self._is_leaving:
                    self._abandon(self._attempts.keys())
                    return
            except (ConnectionError, TimeoutError):
                pass
            finally:
                self._lane = None
            if self._is_leaving:
                return
            await asyncio.sleep(backoff_s(attempt))
            attempt += 1

    async def drain(self, limit_s):
        """Takes nothing new, finishes, and leaves (8.7)."""
        self._readiness = session_pb2.READINESS_DRAINING
        if self._lane:
            self._report()
        try:
            async with asyncio.timeout(limit_s):
                await self._is_idle.wait()
        except TimeoutError:
            handlers = [attempt.handler for attempt in self._attempts.values()]
            for handler in handlers:
                handler.cancel()
            await asyncio.gather(*handlers, return_exceptions=True)
        self._is_leaving = True
        if self._lane:
            await self._lane.leave()

    def _is_draining(self):
        return self._readiness == session_pb2.READINESS_DRAINING

    def _hello(self):
        return session_pb2.Hello(
            mcp_version=VERSION, roles=[session_pb2.ROLE_WORKER], sdk="mcp-example-python/1",
            agent_id=self._agent_id, instance_id=self._instance_id, service_type="example",
            actions=self._handlers, slots=self._slots, held=list(self._attempts),
            readiness=self._readiness)

    def _opened(self, lane):
        """ACK came: goes on with the attempts that it keeps (8.5)."""
        self._lane, self._lane_limits = lane, lane.ack.limits
        self._routes_received = 0
        self._unconfirmed = 0
        self._abandon(self._attempts.keys() - set(lane.ack.keep))
        for attempt in self._attempts.values():
            if attempt.result:
                self._send_result(attempt)

    def _abandon(self, ids):
        for attempt_id in list(ids):
            attempt = self._attempts.pop(attempt_id)
            attempt.is_abandoned = True
            attempt.handler.cancel()
        self._note_idle()

    async def _serve(self, lane):
        reporting = asyncio.create_task(self._report_regularly(lane))
        watching = asyncio.create_task(lane.watch(lambda: bool(self._attempts)))
        try:
            async for frame, body in lane.frames():
                kind = frame.WhichOneof("kind")
                if kind == "route":
                    self._routed(frame.route, body)
                elif kind == "cancel":
                    self._cancelled(frame.cancel)
                elif kind == "error":
                    print(f"broker: {frame.error.message}", file=sys.stderr, flush=True)
                elif kind == "goaway":
                    print(f"broker: {frame.goaway.message}", file=sys.stderr, flush=True)
        finally:
            reporting.cancel()
            watching.cancel()

    async def _report_regularly(self, lane):
        while True:
            self._report()
            await asyncio.sleep(lane.ack.ping_interval_ms / 1000)

    def _report(self):
        """PING, with what is held; its PONG confirms the RESULTs sent before it (8.4)."""
        held = [attempt_id for attempt_id, it in self._attempts.items() if not it.result]
        sent = [attempt_id for attempt_id, it in self._attempts.items() if it.result]
        self._unconfirmed = 0
        pong = self._lane.send_ping(
            self._readiness, routes_received=self._routes_received, held=held)
        pong.add_done_callback(lambda pong: self._confirmed(pong, sent))

    def _confirmed(self, pong, sent):
        if pong.cancelled() or pong.exception():
            return
        for attempt_id in sent:
            self._attempts.pop(attempt_id, None)
        self._note_idle()

    def _note_idle(self):
        if self._attempts:
            self._is_idle.clear()
        else:
            self._is_idle.set()

    def _routed(self, route, body):
        self._routes_received += 1
        running = sum(1 for attempt in self._attempts.values() if not attempt.result)
        if self._is_draining():
            return self._nack(route, error_pb2.ERROR_CODE_SHUTTING_DOWN, "this worker is leaving")
        if route.task.action not in self._handlers:
            return self._nack(route, error_pb2.ERROR_CODE_UNKNOWN_ACTION, route.task.action)
        if route.input_follows:
            message = "this worker takes no inputs in chunks (6.9)"
            return self._nack(route, error_pb2.ERROR_CODE_UNSUPPORTED, message)
        if running >= self._slots:
            return self._nack(route, error_pb2.ERROR_CODE_ALL_BUSY, "no free slot")
        attempt = Attempt(route, body)
        self._attempts[route.attempt_id] = attempt
        self._note_idle()
        attempt.handler = asyncio.create_task(self._handle(attempt))
        # Called in every case, also when it is cancelled before it could start.
        attempt.handler.add_done_callback(lambda handler: self._finished(attempt, handler))

    def _nack(self, route, code, message):
        error = error_pb2.Error(code=code, message=message)
        self._lane.send(Frame(nack=task_pb2.Nack(attempt_id=route.attempt_id, error=error)))

    def _cancelled(self, cancel):
        attempt = self._attempts.get(cancel.attempt_id)
        if attempt and not attempt.result:
            attempt.cancelled = cancel.reason
            attempt.handler.cancel()

    async def _handle(self, attempt):
        attempt.started = time.monotonic()
        route = attempt.route
        async with asyncio.timeout(route.ttl_ms / 1000 - (attempt.started - attempt.arrived)) as it:
            attempt.timeout = it
            body = await self._handlers[route.task.action](attempt.body)
        if len(body) > self._lane_limits.max_body_bytes:
            raise HandlerError(f"a result of {len(body)} bytes is too large")
        return body

    def _finished(self, attempt, handler):
        """Makes the one RESULT of an attempt, whatever happened to its handler."""
        if attempt.is_abandoned:
            handler.cancelled() or handler.exception()
            return
        outcome, code, message, body = task_pb2.OUTCOME_OK, None, "", b""
        is_expired = attempt.timeout and attempt.timeout.expired()
        if handler.cancelled():
            is_expired = attempt.cancelled == task_pb2.CANCEL_REASON_EXPIRED
            outcome = task_pb2.OUTCOME_CANCELLED
            code, message = error_pb2.ERROR_CODE_CANCELLED, "stopped"
        elif problem := handler.exception():
            outcome = task_pb2.OUTCOME_FAILED
            code, message = error_pb2.ERROR_CODE_HANDLER_PANIC, repr(problem)
            if isinstance(problem, HandlerError):
                code, message = error_pb2.ERROR_CODE_HANDLER_FAILED, str(problem)
        else:
            body = handler.result()
        if is_expired and outcome != task_pb2.OUTCOME_OK:
            outcome = task_pb2.OUTCOME_EXPIRED
            code, message = error_pb2.ERROR_CODE_EXPIRED, "stopped at its deadline"

        ended = time.monotonic()
        started = attempt.started or ended
        result = task_pb2.Result(
            attempt_id=attempt.route.attempt_id,
            outcome=outcome,
            executed=task_pb2.EXECUTED_YES if attempt.started else task_pb2.EXECUTED_NO,
            error=error_pb2.Error(code=code, message=message) if code else None,
            queue_us=int((started - attempt.arrived) * 1e6),
            work_us=int((ended - started) * 1e6))
        attempt.result = (result, body)
        if self._lane:
            self._send_result(attempt)

    def _send_result(self, attempt):
        result, body = attempt.result
        self._lane.send(Frame(result=result), body)
        self._unconfirmed += 1
        if self._unconfirmed >= MAX_UNCONFIRMED or self._is_draining():
            self._report()


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state", required=True, help="the broker's --state directory")
    parser.add_argument("--agent-id", default="python-1")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--drain", type=float, default=10.0, help="seconds")
    arguments = parser.parse_args()

    broker = Broker.from_state_dir(arguments.state)
    worker = Worker(broker, arguments.agent_id, arguments.slots, HANDLERS)
    running = asyncio.create_task(worker.run())
    draining = []
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(
            number, lambda: draining.append(asyncio.create_task(worker.drain(arguments.drain))))
    await running
    await asyncio.gather(*draining)


if __name__ == "__main__":
    asyncio.run(main())
