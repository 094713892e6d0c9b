"""Train the demo model: a small but complete Stable Diffusion that draws coloured shapes.

    python train.py /tmp/model                             # the committed model: an hour on one core
    python train.py /tmp/model --vae-steps 300 --unet-steps 300    # a short test: three minutes

The model has every part of a real one (tokenizer, CLIP text encoder, UNet with cross attention, VAE, scheduler, safety
checker), so `from_pretrained` and the handler run the same code as with a 4 GB checkpoint. `shapes.draw` paints the
training pictures.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from shapes import FORMS, SCENES, SIZE, Scene, draw, random_scene
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
MAX_TOKENS = 32
TEXT_DIM = 64


# ---------------------------------------------------------------- the parts


def make_tokenizer() -> CLIPTokenizer:
    """CLIP's own kind of tokenizer: known words are one token, any other text is spelt in bytes."""
    spelling = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    spelling.pre_tokenizer = pre_tokenizers.Whitespace()
    spelling.train_from_iterator(
        (scene.prompt(form) for scene in SCENES for form in FORMS),
        trainers.BpeTrainer(vocab_size=10_000, end_of_word_suffix="</w>", show_progress=False),
    )
    merges = [tuple(pair) for pair in json.loads(spelling.to_str())["model"]["merges"]]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges), BOS, EOS]
    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate(dict.fromkeys(tokens))},
        merges=merges,
        unk_token=EOS,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        model_max_length=MAX_TOKENS,
    )


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            hidden_size=TEXT_DIM,
            intermediate_size=4 * TEXT_DIM,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=TEXT_DIM,
            **token_numbers(tokenizer),
        )
    )


def make_vae() -> AutoencoderKL:
    widths = (8, 16, 32, 32)  # four levels make latents 8x smaller, as in every real checkpoint
    return AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=1,
        norm_num_groups=2,  # with as many groups as channels, the norm wipes out plain colours
        sample_size=SIZE,
    )


def make_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIZE // 8,
        block_out_channels=(32, 64, 96),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_DIM,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def make_scheduler() -> DDIMScheduler:
    """A schedule that ends in pure noise; without it, plain black and white are impossible."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )


def make_safety_checker(tokenizer: CLIPTokenizer) -> tuple[StableDiffusionSafetyChecker, CLIPImageProcessor]:
    """An untrained checker that runs and flags nothing: no similarity exceeds its threshold of 1."""
    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": 16,
    }
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(
            projection_dim=16,
            text_config={**small, **token_numbers(tokenizer)},
            vision_config={**small, "image_size": 32, "patch_size": 16},
        )
    )
    return checker, CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def token_numbers(tokenizer: CLIPTokenizer) -> dict[str, int]:
    """Token numbers for a text config, whose defaults are those of CLIP's vocabulary."""
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


# ---------------------------------------------------------------- the training


def train_vae(vae: AutoencoderKL, steps: int, rng: random.Random, batch: int = 4) -> None:
    """Teach the VAE to carry plain colours and sharp edges through its latents."""

    def loss() -> torch.Tensor:
        pictures = draw([random_scene(rng) for _ in range(batch)])
        coded = vae.encode(pictures).latent_dist
        latents = coded.sample()
        # The latents of the UNet will be slightly off; teach the decoder to correct them.
        latents = latents + 0.1 * latents.detach().std() * torch.randn_like(latents)
        again = vae.decode(latents).sample
        per_number = coded.kl().mean() / coded.mean[0].numel()
        return F.mse_loss(again, pictures) + 0.3 * F.l1_loss(again, pictures) + 3e-4 * per_number

    fit("vae", [vae], loss, steps, rate=2e-3)


def polish_decoder(vae: AutoencoderKL, steps: int, rng: random.Random, batch: int = 4) -> None:
    """Train only the decoder, for sharpness: absolute differences blur less than squared ones."""

    def loss() -> torch.Tensor:
        pictures = draw([random_scene(rng) for _ in range(batch)])
        with torch.no_grad():
            latents = vae.encode(pictures).latent_dist.mean
            latents += 0.05 * latents.std() * torch.randn_like(latents)
        again = vae.decode(latents).sample
        # Differences between neighbours: plain areas stay plain, edges stay sharp.
        return F.l1_loss(again, pictures) + sum(
            F.l1_loss(again.diff(dim=axis), pictures.diff(dim=axis)) for axis in (2, 3)
        )

    fit("decoder", [vae.post_quant_conv, vae.decoder], loss, steps, rate=1e-3)


@torch.no_grad()
def encode(vae: AutoencoderKL, scenes: Sequence[Scene]) -> torch.Tensor:
    """Latents of all scenes, scaled to a spread of 1; stores the factor in the VAE's config."""
    parts = [scenes[start : start + 64] for start in range(0, len(scenes), 64)]
    latents = torch.cat([vae.encode(draw(part)).latent_dist.mean for part in parts])
    vae.register_to_config(scaling_factor=1 / latents.std().item())
    return latents * vae.config.scaling_factor


def train_unet(
    pipe: StableDiffusionPipeline,
    steps: int,
    rng: random.Random,
    checkpoint: Callable[[], None],
    batch: int = 32,
    pictures: int = 16_384,
) -> None:
    """Train the UNet and the text encoder together to draw the prompt."""
    scenes = [random_scene(rng) for _ in range(pictures)]
    latents = encode(pipe.vae, scenes)
    noising = pipe.scheduler

    def words(scene: Scene) -> str:
        # One prompt in ten is empty, because guidance compares with the picture for an empty prompt.
        return "" if rng.random() < 0.1 else scene.prompt(rng.choice(FORMS))

    def loss() -> torch.Tensor:
        chosen = rng.sample(range(pictures), batch)
        clean = latents[chosen]
        prompts = [words(scenes[number]) for number in chosen]
        tokens = pipe.tokenizer(prompts, padding="max_length", return_tensors="pt").input_ids
        hidden = pipe.text_encoder(tokens)[0]
        noise = torch.randn_like(clean)
        when = torch.randint(noising.config.num_train_timesteps, (batch,))
        noisy = noising.add_noise(clean, noise, when)
        guess = pipe.unet(noisy, when, encoder_hidden_states=hidden).sample
        return F.mse_loss(guess, noising.get_velocity(clean, noise, when))

    fit("unet", [pipe.unet, pipe.text_encoder], loss, steps, rate=1.5e-3, checkpoint=checkpoint)


def fit(
    name: str,
    modules: list[torch.nn.Module],
    loss: Callable[[], torch.Tensor],
    steps: int,
    rate: float,
    checkpoint: Callable[[], None] = lambda: None,
) -> None:
    """Minimise `loss` with AdamW, a short warm-up and a cosine decay to zero."""
    weights = [weight for module in modules for weight in module.train().parameters()]
    optimizer = torch.optim.AdamW(weights, rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    begin, mean = time.perf_counter(), 0.0
    for step in range(1, steps + 1):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        mean += (value.item() - mean) / min(step, 100)
        if step % 100 == 0:
            print(f"{name} {step}/{steps}  {time.perf_counter() - begin:.0f} s  loss {mean:.4f}", flush=True)
        if step % 1000 == 0:
            checkpoint()
    for module in modules:
        module.eval()


# ---------------------------------------------------------------- the folder


def make_pipeline(vae: AutoencoderKL) -> StableDiffusionPipeline:
    tokenizer = make_tokenizer()
    checker, processor = make_safety_checker(tokenizer)
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=make_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=make_unet(),
        scheduler=make_scheduler(),
        safety_checker=checker,
        feature_extractor=processor,
    )


def save(pipe: StableDiffusionPipeline, folder: Path) -> None:
    """Write a float16 copy that diffusers loads under transformers 4 and 5 alike."""
    copy.deepcopy(pipe).to(dtype=torch.float16).save_pretrained(folder)

    # transformers 5 writes only tokenizer.json, transformers 4 reads only these two.
    spelling = json.loads((folder / "tokenizer/tokenizer.json").read_text("utf-8"))["model"]
    merges = "".join(" ".join(pair) + "\n" for pair in spelling["merges"])
    (folder / "tokenizer/vocab.json").write_text(json.dumps(spelling["vocab"], ensure_ascii=False), "utf-8")
    (folder / "tokenizer/merges.txt").write_text("#version: 0.2\n" + merges, "utf-8")

    # Without torchvision, transformers 5 writes a class name that transformers 4 does not know.
    for name in ("model_index.json", "feature_extractor/preprocessor_config.json"):
        text = (folder / name).read_text("utf-8")
        (folder / name).write_text(text.replace("ImageProcessorPil", "ImageProcessor"), "utf-8")


def main() -> None:
    options = argparse.ArgumentParser(description="Train the demo model.")
    options.add_argument("folder", type=Path, help="where the model is written")
    options.add_argument("--vae-steps", type=int, default=6_000)
    options.add_argument("--unet-steps", type=int, default=8_000)
    options.add_argument("--vae", metavar="FOLDER", help="take the VAE of this model instead of training one")
    options.add_argument("--seed", type=int, default=1)
    args = options.parse_args()

    torch.set_num_threads(1)  # the same sums in the same order on every machine
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    if args.vae:
        vae = AutoencoderKL.from_pretrained(args.vae, subfolder="vae", dtype=torch.float32)
    else:
        vae = make_vae()
        train_vae(vae, args.vae_steps, rng)
        polish_decoder(vae, args.vae_steps // 2, rng)
    pipe = make_pipeline(vae)
    save(pipe, args.folder)
    train_unet(pipe, args.unet_steps, rng, checkpoint=lambda: save(pipe, args.folder))
    save(pipe, args.folder)


if __name__ == "__main__":
    main()
