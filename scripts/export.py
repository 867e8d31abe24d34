"""export: see --help, and cxr/stages/export.py."""

from cxr.config import ExportConfig, script
from cxr.stages.export import export_stage


@script("export")
def main(config: ExportConfig) -> None:
    """Run the stage."""
    export_stage(config)


if __name__ == "__main__":
    main()
