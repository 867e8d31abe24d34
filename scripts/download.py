"""download: fetch the public sources; see --help, and cxr/pipeline/download_stage.py."""

from cxr.pipeline.config import DownloadConfig, script
from cxr.pipeline.download_stage import download_stage


@script("download")
def main(config: DownloadConfig) -> None:
    """Run the stage."""
    download_stage(config)


if __name__ == "__main__":
    main()
