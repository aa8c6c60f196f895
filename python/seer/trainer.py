"""Training with gates by transformers' Trainer: the gates' loss beside the model's own."""
from __future__ import annotations

import math
import pathlib

from transformers import Trainer

from .attach import head_sizes
from .gates import check_folder, read_weights
from .packing import counted
from .saving import save_gates


class GateTrainer(Trainer):
    """A Trainer that adds the gates' loss, summed over layers, times `gate_loss_weight` to the loss of each batch.

    model: after seer.attach(..., train_gates=True). With its own weights frozen only gates learn; else it learns to read through
    the blocks that they choose, while they follow its attention. Gates have a learning rate of their own, with args' schedule. The
    logged loss is that of both; evaluation's is the model's. ValueError: no gates that learn; settings out of range; an output_dir
    that is no folder.
    """

    def __init__(self, model=None, args=None, *more, gate_loss_weight: float = 10.0, gate_learning_rate: float = 1.5e-3, **kwargs):
        for name, value in (("gate_loss_weight", gate_loss_weight), ("gate_learning_rate", gate_learning_rate)):
            if not 0 < value < math.inf:
                raise ValueError(f"seer.GateTrainer: {name} is {value}, want more than 0")
        if model is not None and getattr(getattr(model, "seer", None), "learning", None) is None:
            raise ValueError("seer.GateTrainer: the model has no gates that learn: call seer.attach(model, gates, sparsity, train_gates=True) first")
        if args is not None and args.ddp_find_unused_parameters is None:
            args.ddp_find_unused_parameters = False  # to DDP gates look unused: no output of the model depends on their loss
        if args is not None and args.output_dir is not None:
            check_folder(pathlib.Path(args.output_dir))
        self.gate_loss_weight, self.gate_learning_rate = gate_loss_weight, gate_learning_rate
        self._is_result = False  # what is being saved; else a checkpoint
        super().__init__(model, args, *more, **kwargs)
        if self.is_fsdp_enabled and self._has_adapters() and str(getattr(self.args.save_strategy, "value", self.args.save_strategy)) != "no":
            raise ValueError('seer.GateTrainer: checkpoints of sharded PEFT adapters have no gates: take save_strategy="no", and save_model at the end')

    def _gates(self) -> set:
        """Ids of their weights."""
        layers = self.accelerator.unwrap_model(self.model).seer.layers
        return {id(x) for layer in layers for x in layer.attn_gate.parameters()}

    def create_optimizer(self, *args, **kwargs):
        is_new = self.optimizer is None
        optimizer, gates = super().create_optimizer(*args, **kwargs), self._gates()
        for group in list(optimizer.param_groups) if is_new else ():
            own = [x for x in group["params"] if id(x) in gates]
            if own:
                group["params"] = [x for x in group["params"] if id(x) not in gates]
                optimizer.add_param_group({**group, "params": own, "lr": self.gate_learning_rate})
        if is_new:
            optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
        return optimizer

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if model.training:
            # Where losses are sums over the tokens of a whole step, Trainer does not divide them by the batches that it accumulates.
            is_whole = self.model_accepts_loss_kwargs and num_items_in_batch is not None or self.compute_loss_func is not None
            if getattr(self, "loss_is_scaled_for_ga", None) is not None:
                is_whole = self.loss_is_scaled_for_ga
            share = 1 / getattr(self, "current_gradient_accumulation_steps", self.args.gradient_accumulation_steps) if is_whole else 1
            gate_loss = self.accelerator.unwrap_model(model).seer.gate_loss
            loss = loss + (self.gate_loss_weight * share) * gate_loss.to(loss.device)
        return (loss, outputs) if return_outputs else loss

    def save_model(self, output_dir=None, _internal_call=False):
        """A folder that transformers opens as a dense model, and its gates in gates/, as `seer finetune` leaves them; to be called in
        all processes. A checkpoint, from which a run goes on, has them within the model's file."""
        self._is_result = not (_internal_call and output_dir is not None)
        if self._is_result:
            if self.is_fsdp_enabled and "FULL_STATE_DICT" not in str(self.accelerator.state.fsdp_plugin.state_dict_type):
                raise ValueError('seer.GateTrainer: a sharded model is saved whole only with fsdp_config={"state_dict_type": "FULL_STATE_DICT"}')
            if self.is_fsdp_enabled or self.args.should_save:
                save_gates(self.accelerator.unwrap_model(self.model), pathlib.Path(output_dir or self.args.output_dir) / "gates")
        super().save_model(output_dir, _internal_call)

    def _save(self, output_dir=None, state_dict=None):
        if self._is_result and self.args.should_save:
            named = self.model.state_dict() if state_dict is None else state_dict
            state_dict = {name: x for name, x in named.items() if ".attn_gate." not in name}
        super()._save(output_dir, state_dict)
        if not self._is_result and self.args.should_save and self._has_adapters():
            save_gates(self.accelerator.unwrap_model(self.model), pathlib.Path(output_dir) / "gates")

    # A checkpoint of PEFT adapters has the adapters alone: gates lie beside them.

    def _has_adapters(self) -> bool:
        return hasattr(self.accelerator.unwrap_model(self.model), "peft_config")

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._load_gates(resume_from_checkpoint)

    def _load_best_model(self):
        super()._load_best_model()
        self._load_gates(self.state.best_model_checkpoint)

    def _load_gates(self, checkpoint) -> None:
        if not self._has_adapters():
            return
        attachment = self.accelerator.unwrap_model(self.model).seer
        layers = attachment.layers
        found = read_weights(pathlib.Path(checkpoint) / "gates", attachment.gate_config, len(layers), head_sizes(layers[0]))
        for layer, weights in zip(layers, found):
            layer.attn_gate.load(weights)

    def train(self, *args, **kwargs):
        result, model, gates = super().train(*args, **kwargs), self.accelerator.unwrap_model(self.model), self._gates()
        is_frozen = not any(x.requires_grad for x in model.parameters() if id(x) not in gates)
        model.seer.trained = (f"Trained with {'the model frozen' if is_frozen else 'the model, which learned to read through them'}: "
                              f"{counted(self.state.global_step, 'step')}, gates' loss times {self.gate_loss_weight:g}.")
        return result
