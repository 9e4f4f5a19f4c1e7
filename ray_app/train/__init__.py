"""Fine-tuning the judge: SFT and DPO with DeepSpeed ZeRO under Ray Train. Entry point: `trainer.fit`."""
