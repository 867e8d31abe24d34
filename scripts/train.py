"""train: see --help, and cxr/pipeline/train_stage.py."""

from cxr.pipeline.config import TrainConfig, script
from cxr.pipeline.train_stage import train_stage


@script("train")
def main(config: TrainConfig) -> None:
    """Run the stage."""
    train_stage(config)


if __name__ == "__main__":
    main()
