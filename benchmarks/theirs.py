"""The other side: ViLT of Hugging Face transformers on torch, same sizes, with a head of the same shape."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable

import torch
from alternate import serve
from cases import CASES, Case
from transformers import ViltConfig, ViltModel


class Answers(torch.nn.Module):
    """ViLT with the head of `ViltForQuestionAnswering`."""

    def __init__(self, case: Case):
        super().__init__()
        self.vilt = ViltModel(
            ViltConfig(
                vocab_size=case.vocabulary,
                hidden_size=case.width,
                num_hidden_layers=case.layers,
                num_attention_heads=case.heads,
                intermediate_size=case.mlp,
                image_size=case.side * case.patch,
                patch_size=case.patch,
                max_position_embeddings=case.text,
            )
        )
        self.head = torch.nn.Sequential(
            torch.nn.Linear(case.width, 2 * case.width),
            torch.nn.LayerNorm(2 * case.width),
            torch.nn.GELU(),
            torch.nn.Linear(2 * case.width, case.answers),
        )

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.vilt(**inputs).pooler_output)


def random_inputs(case: Case, *, image_tokens: bool) -> dict[str, torch.Tensor]:
    """Pixels, or image tokens ready made: that leaves out patches, positions and ViLT's choice of patches."""
    generator = torch.Generator().manual_seed(0)
    inputs = {"input_ids": torch.randint(5, case.vocabulary, (case.batch, case.text), generator=generator)}
    if image_tokens:
        inputs["image_embeds"] = torch.randn(case.batch, case.patches + 1, case.width, generator=generator)
        inputs["pixel_mask"] = torch.ones(case.batch, case.patches + 1, dtype=torch.long)
    else:
        side = case.side * case.patch
        inputs["pixel_values"] = torch.randn(case.batch, 3, side, side, generator=generator)
    return inputs


def make_step(
    case: Case, *, mode: str, autocast: bool, image_tokens: bool, compiled: bool
) -> Callable[[], torch.Tensor]:
    torch.manual_seed(0)
    model, inputs = Answers(case), random_inputs(case, image_tokens=image_tokens)
    call = torch.compile(model) if compiled else model
    answers = torch.randint(0, case.answers, (case.batch,))
    precision = torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext()
    if mode == "forward":
        model.eval()

        @torch.inference_mode()
        def forward() -> torch.Tensor:
            with precision:
                return call(**inputs)

        return forward

    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def train() -> torch.Tensor:
        optimizer.zero_grad()
        with precision:
            logits = call(**inputs)
        loss = torch.nn.functional.cross_entropy(logits.float(), answers)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return train


def products(case: Case) -> Callable[[], object]:
    """The matrix products of a training step's projections and nothing else: the layers' forward and two backward."""
    rows = case.batch * case.tokens
    shapes = [shape for _ in range(case.layers) for shape in case.projections]
    operands = [(torch.randn(shape), torch.randn(rows, shape[0]), torch.randn(rows, shape[1])) for shape in shapes]

    @torch.inference_mode()
    def all_products() -> object:
        return [(x @ kernel, g @ kernel.T, x.T @ g) for kernel, x, g in operands]

    return all_products


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=CASES, required=True)
    parser.add_argument("--mode", choices=("train", "forward", "products"), required=True)
    parser.add_argument("--autocast", action="store_true", help="bfloat16")
    parser.add_argument("--image_tokens", action="store_true", help="image tokens given, not computed")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    args = parser.parse_args()
    if args.mode == "products":
        serve(products(CASES[args.case]))
        return
    step = make_step(
        CASES[args.case],
        mode=args.mode,
        autocast=args.autocast,
        image_tokens=args.image_tokens,
        compiled=args.compile,
    )
    serve(step)


if __name__ == "__main__":
    main()
