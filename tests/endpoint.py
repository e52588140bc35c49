"""An OpenAI-compatible server in a thread, which misbehaves on purpose and by a seed; for tests of `create`."""

import hashlib
import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = ("429", "429-after", "500", "closed", "stalled", "dripping", "garbage", "truncated", "empty", "html")
ANSWER = '{"checklist": [{"question": "Does it say %s?", "weight": 3, "category": "content"}, "Is it short?"]}'


def chat_of(body: dict) -> str:
    """What tells one chat from another: the SHA-256 of its messages."""
    return hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()


class Endpoint:
    """Serves while its `with` lasts. `answer(body, n)` gives the text (or a dict of the body to merge) of the n-th try.

    `rate` of the tries fail, by seed, chat and number of the try: not by time or by who comes first. `tries` counts
    requests by chat, `answered` whole answers by chat, `faults` what went wrong, `left` the clients that did not wait
    for the end; `peak` is how many were here at once.
    """

    def __init__(self, rate=0.0, seed=0, answer=None, pause=0.0, faults=FAULTS, stall=1.5):
        self.rate, self.seed, self.pause, self.kinds, self.stall = rate, seed, pause, faults, stall
        self.answer = answer or (lambda body, n: ANSWER % chat_of(body)[:8])
        self.tries, self.answered, self.faults = Counter(), Counter(), Counter()
        self.bodies, self.keys = [], set()
        self.now = self.peak = self.left = 0
        self.lock = threading.Lock()

    def __enter__(self):
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with endpoint.lock:
                    endpoint.now += 1
                    endpoint.peak = max(endpoint.peak, endpoint.now)
                    endpoint.tries[chat_of(body)] += 1
                    n = endpoint.tries[chat_of(body)]
                    endpoint.bodies.append(body)
                    endpoint.keys.add(self.headers["Authorization"])
                try:
                    endpoint.serve(self, body, n)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
                    with endpoint.lock:
                        endpoint.left += 1
                finally:
                    # An answer that was sent whole has left already; its client may be back before this.
                    with endpoint.lock:
                        if not getattr(self, "gone", False):
                            endpoint.now -= 1
                        self.gone = False

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, address):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def serve(self, handler, body, n):
        if self.pause:
            time.sleep(self.pause)
        drawn = hashlib.sha256(f"{self.seed} {chat_of(body)} {n}".encode()).digest()
        fault = None
        if int.from_bytes(drawn[:4], "big") / 2**32 < self.rate:
            with self.lock:  # each kind in its turn, so that none is left out
                fault = self.kinds[sum(self.faults.values()) % len(self.kinds)]
                self.faults[fault] += 1
        text = self.answer(body, n)
        whole = {
            "id": "x", "object": "chat.completion", "created": 1, "model": f"{body['model']}-served",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150},
        }  # fmt: skip
        status, headers = 200, {}
        if isinstance(text, tuple):
            status, whole = text
        elif isinstance(text, dict):
            whole |= text
        data = json.dumps(whole).encode()
        if fault in ("429", "429-after"):
            status, data = 429, b'{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}'
            headers = {"Retry-After": "3"} if fault == "429-after" else {}
        elif fault == "500":
            status, data = 500, b"<h1>oops</h1>"
        elif fault == "garbage":
            data = b"\x00\xff{]" + data[:20]
        elif fault == "truncated":
            data = data[: len(data) // 2]
        elif fault == "empty":
            data = json.dumps(whole | {"choices": []}).encode()
        elif fault == "html":
            data, headers = b"<html>please log in</html>", {"Content-Type": "text/html"}
        with self.lock:  # counted before it can be read, so that the client is never ahead of the counts
            if fault is None and status == 200:
                self.answered[chat_of(body)] += 1
            self.now -= 1  # who hangs up on a server that hangs is gone before it notices, so these end here too
            handler.gone = True
        if fault == "closed":
            handler.close_connection = True
            handler.connection.close()
            return
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers, "Content-Length": str(len(data))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if fault == "stalled":
            handler.wfile.write(data[:10])
            handler.wfile.flush()
            time.sleep(self.stall)
            handler.close_connection = True
        elif fault == "dripping":
            for byte in data:
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
                time.sleep(self.stall / 20)
        else:
            handler.wfile.write(data)
