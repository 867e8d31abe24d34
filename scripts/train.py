"""train: see --help, and cxr/stages/train.py."""

from cxr.config import TrainConfig, script
from cxr.stages.train import train_stage


@script("train")
def main(config: TrainConfig) -> None:
    """Run the stage."""
    train_stage(config)


if __name__ == "__main__":
    main()
