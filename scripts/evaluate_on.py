"""evaluate_on: see --help, and cxr/pipeline/evaluate_on_stage.py."""

from cxr.pipeline.config import EvaluateOnConfig, script
from cxr.pipeline.evaluate_on_stage import evaluate_on_stage


@script("evaluate_on")
def main(config: EvaluateOnConfig) -> None:
    """Run the stage."""
    evaluate_on_stage(config)


if __name__ == "__main__":
    main()
