"""The LLM of a model in another process: a server such as vLLM's, which `export vllm` prepares.

It is sent the embeddings of prefixes, and decodes them greedily with the LoRA of their route.
"""

import base64
import io
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import torch
from torch import Tensor

from omni_avsr.errors import InputError
from omni_avsr.model import Batch, OmniAVSR
from omni_avsr.model.beams import Generated
from omni_avsr.model.sums import adapter_names, name_of_sum

LLM = "omni-avsr"  # what the server calls it
AT_A_TIME = 256  # prefixes that are sent; vLLM puts them into batches
PATIENCE = httpx.Timeout(600.0, connect=10.0)  # seconds
KEPT = 2.0  # seconds that a connection is kept for the next request, less than servers do


class EngineError(InputError):
    """The engine did not do what it was asked for."""

    clip: int | None = None  # number of the one whose transcript is missing


class Remote:
    """Sends prefixes to a server, and gets the ids of transcripts."""

    def __init__(self, url: str, eos: int):
        self.url = url.rstrip("/").removesuffix("/v1")
        self.eos = eos
        key = os.environ.get("VLLM_API_KEY")  # as vLLM calls it
        headers = {"authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=AT_A_TIME, keepalive_expiry=KEPT)
        self.client = httpx.Client(
            base_url=self.url, headers=headers, timeout=PATIENCE, limits=limits
        )
        self.pool = ThreadPoolExecutor(AT_A_TIME, "remote")

    def refuse_missing(self, sums: Iterable[Sequence[str]]) -> None:
        """Refuses a server that lacks the LLM or one of these sums of adapters."""
        served = {model["id"] for model in self._answer("GET", "/v1/models", "data")}
        missing = {LLM, *map(name_of_sum, sums)} - served
        if missing:
            raise EngineError(
                f"the engine at {self.url} has no {', '.join(sorted(missing))}: start it with the "
                "command that `omni-avsr export vllm` prints"
            )

    @torch.no_grad()
    def begin(
        self, model: OmniAVSR, batch: Batch, max_new_tokens: int | None
    ) -> list[Future[Generated]]:
        """The transcripts of a batch, as they come; the model embeds their prefixes."""
        prefixes, limits = model.prefixes(batch, max_new_tokens)
        names = adapter_names(model.config.adapters, batch.route)
        found = []
        for prefix, mask, limit in zip(prefixes, batch.attention_mask, limits, strict=True):
            own = prefix[mask.bool()].cpu()  # (L, D)
            found.append(self.pool.submit(self._generate, own, limit, names))
        return found

    def _generate(self, prefix: Tensor, limit: int, names: Sequence[str]) -> Generated:
        content = io.BytesIO()
        torch.save(prefix, content)
        asked = {
            "model": name_of_sum(names) or LLM,
            "prompt_embeds": base64.b64encode(content.getvalue()).decode(),
            "max_tokens": limit,
            "temperature": 0,
            "logprobs": 0,  # of the chosen tokens only
            "return_token_ids": True,
            "stop_token_ids": [self.eos],
            "ignore_eos": True,  # the one of the LLM may be another
        }
        (choice,) = self._answer("POST", "/v1/completions", "choices", json=asked)
        try:
            ids = torch.tensor(choice["token_ids"])
            sums = torch.tensor(choice["logprobs"]["token_logprobs"]).cumsum(0)
        except (KeyError, TypeError):
            raise EngineError(f"the engine at {self.url} is too old: it names no tokens") from None
        is_cut = ~(ids == self.eos).any()
        return Generated(ids[None], sums[-1:] / len(ids), is_cut[None], sums[None])

    def _answer(self, method: str, path: str, field: str, **content: Any) -> Any:
        """A field of the server's answer."""
        try:
            answer = self.client.request(method, path, **content)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise EngineError(f"the engine at {self.url} does not answer: {reason}") from None
        if not answer.is_success:
            raise EngineError(f"the engine at {self.url} refuses: {_one_line(answer.text)}")
        try:
            return answer.json()[field]
        except (ValueError, KeyError, TypeError):
            raise EngineError(f"{self.url} is no engine: {_one_line(answer.text)}") from None


def _one_line(text: str) -> str:
    """The beginning of a message."""
    return " ".join(text.split())[:300]
