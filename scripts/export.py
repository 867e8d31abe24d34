"""export: see --help, and cxr/pipeline/export_stage.py."""

from cxr.pipeline.config import ExportConfig, script
from cxr.pipeline.export_stage import export_stage


@script("export")
def main(config: ExportConfig) -> None:
    """Run the stage."""
    export_stage(config)


if __name__ == "__main__":
    main()
