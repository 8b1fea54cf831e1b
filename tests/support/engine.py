"""A server that does what vLLM's does with prefixes, with transformers and PEFT."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


class ReferenceEngine:
    """Greedy decoding of one prefix after another, with the LLM and LoRAs of an export."""

    def __init__(self, folder: Path):
        self.llm = AutoModelForCausalLM.from_pretrained(folder / "llm", dtype=torch.float32)
        self.loras = sorted((folder / "adapters").glob("*/"))
        for lora in self.loras:
            if isinstance(self.llm, PeftModel):
                self.llm.load_adapter(lora, adapter_name=lora.name)
            else:
                self.llm = PeftModel.from_pretrained(self.llm, lora, adapter_name=lora.name)
        self.lock = threading.Lock()
        self.asked: list[dict] = []

    @property
    def models(self) -> list[str]:
        return ["omni-avsr", *(lora.name for lora in self.loras)]

    @torch.no_grad()
    def complete(self, asked: dict) -> dict:
        with self.lock:
            self.asked.append(asked)
            if asked["model"] != "omni-avsr":
                self.llm.set_adapter(asked["model"])
            content = base64.b64decode(asked["prompt_embeds"])
            prefix = torch.load(io.BytesIO(content), weights_only=True)[None]
            ids: list[int] = []
            log_probs = []
            while len(ids) < asked["max_tokens"] and not set(ids) & set(asked["stop_token_ids"]):
                said = self.llm.get_input_embeddings()(torch.tensor([ids], dtype=torch.long))
                logits = self.llm(inputs_embeds=torch.cat([prefix, said], 1)).logits[0, -1]
                best = logits.log_softmax(-1).max(-1)
                ids.append(int(best.indices))
                log_probs.append(float(best.values))
        return {"choices": [{"token_ids": ids, "logprobs": {"token_logprobs": log_probs}}]}


@contextmanager
def engine(reference: ReferenceEngine) -> Iterator[str]:
    """The address of a server with this engine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer({"data": [{"id": name} for name in reference.models]})

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            self.answer(reference.complete(json.loads(content)))

        def answer(self, content: dict) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
