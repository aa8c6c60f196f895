"""Training with gates by transformers' Trainer: the gates' loss beside the model's own."""
from __future__ import annotations

from transformers import Trainer


class GateTrainer(Trainer):
    """A Trainer that adds the gates' loss, summed over layers, times `gate_weight` to the loss of each batch.

    model: after seer.attach(..., train_gates=True). With its own weights frozen only gates learn; else it learns to read through
    the blocks that they choose, while they follow its attention. The logged loss is that of both; evaluation's is the model's.
    """

    def __init__(self, model=None, args=None, *more, gate_weight: float = 10.0, **kwargs):
        if args is not None and args.ddp_find_unused_parameters is None:
            args.ddp_find_unused_parameters = False  # to DDP gates look unused: no output of the model depends on their loss
        super().__init__(model, args, *more, **kwargs)
        self.gate_weight = gate_weight

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if model.training:
            # Where losses are sums over the tokens of a whole step, Trainer does not divide them by the batches that it accumulates.
            is_whole = self.model_accepts_loss_kwargs and num_items_in_batch is not None or self.compute_loss_func is not None
            if getattr(self, "loss_is_scaled_for_ga", None) is not None:
                is_whole = self.loss_is_scaled_for_ga
            share = 1 / getattr(self, "current_gradient_accumulation_steps", self.args.gradient_accumulation_steps) if is_whole else 1
            gate_loss = self.accelerator.unwrap_model(model).seer.gate_loss
            loss = loss + (self.gate_weight * share) * gate_loss.to(loss.device)
        return (loss, outputs) if return_outputs else loss

    def train(self, *args, **kwargs):
        result, model = super().train(*args, **kwargs), self.accelerator.unwrap_model(self.model)
        gates = {id(x) for layer in model.seer.layers for x in layer.attn_gate.parameters()}
        is_frozen = not any(x.requires_grad for x in model.parameters() if id(x) not in gates)
        model.seer.trained = (f"Trained with {'the model frozen' if is_frozen else 'the model, which learned to read through them'}: "
                              f"{self.state.global_step} steps, gates' loss times {self.gate_weight:g}.")
        return result
