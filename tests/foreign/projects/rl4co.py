"""rl4co: the attention model for travelling salesmen, trained by REINFORCE; the module makes its own data."""

from __future__ import annotations

from life import Project
from rl4co.envs import TSPEnv
from rl4co.models import AttentionModel


class Client(Project):
    backbone = "policy"
    adapter = {"targets": ["Wqkv", "out_proj"]}
    holds_objects = True
    resume_seed = 1  # its `setup` draws the data, as they were drawn in the run that is gone on with

    def module(self):
        env = TSPEnv(generator_params={"num_loc": 6})
        sizes = {"train_data_size": 12, "val_data_size": 4, "test_data_size": 4, "batch_size": 4}
        policy = {"embed_dim": 16, "num_encoder_layers": 1, "num_heads": 2, "feedforward_hidden": 16}
        return AttentionModel(env, baseline="mean", policy_kwargs=policy, optimizer_kwargs={"lr": 1e-2}, **sizes)

    def fit(self, trainer, module, checkpoint):
        trainer.fit(module, ckpt_path=checkpoint, weights_only=False)
        return module

    def test(self, trainer, module):
        return trainer.test(module, verbose=False)

    def predict(self, trainer, module):
        module.eval()
        states = module.env.reset(batch_size=[4])
        return module(states, phase="test", decode_type="greedy")["reward"]
