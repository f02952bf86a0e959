//! The image for containers, in the layout of the Open Container Initiative: one layer, which has the binary and the licences.

use anyhow::Result;
use serde_json::{Value, json};

use super::parts::Parts;
use super::tree::{Tree, gzip};
use crate::sums::sha256;

/// The name of the folder, and of the archive without its ending.
pub(super) fn name(parts: &Parts) -> String {
    format!("tcpwatch-{}-oci", parts.version)
}

/// The layout.
pub(super) fn build(parts: &Parts) -> Result<Tree> {
    let mut root = Tree::default();
    root.program("usr/bin/tcpwatch", parts.binary.clone());
    for (name, file) in parts.documents.files().filter(|(name, _)| name.starts_with("LICENSE")) {
        root.file(format!("usr/share/doc/tcpwatch/{name}"), file.content.clone());
    }
    let layer = root.tar("", parts.time.seconds())?;
    let packed = gzip(&layer)?;
    let created = parts.time.rfc3339()?;
    let labels = json!({
        "org.opencontainers.image.title": "tcpwatch",
        "org.opencontainers.image.description": "Which process reset, refused or leaked that TCP connection, and why",
        "org.opencontainers.image.version": parts.version,
        "org.opencontainers.image.created": created,
        "org.opencontainers.image.licenses": "(MIT OR Apache-2.0) AND GPL-2.0-only",
        "org.opencontainers.image.source": "https://github.com/tcpwatch/tcpwatch",
        "org.opencontainers.image.url": "https://github.com/tcpwatch/tcpwatch",
        "org.opencontainers.image.documentation":
            "https://github.com/tcpwatch/tcpwatch/blob/main/docs/agent.md",
    });
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": {
            "Entrypoint": ["/usr/bin/tcpwatch", "agent"],
            "Env": ["PATH=/usr/bin"],
            "WorkingDir": "/",
            "ExposedPorts": { "9853/tcp": {} },
            "StopSignal": "SIGTERM",
            "Labels": labels,
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))] },
        "history": [{ "created": created, "created_by": "cargo xtask dist" }],
    });
    let mut layout = Tree::default();
    let mut blob = |kind: &str, content: Vec<u8>| {
        let (digest, size) = (sha256(&content), content.len());
        layout.file(format!("blobs/sha256/{digest}"), content);
        json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": size })
    };
    let config = blob("application/vnd.oci.image.config.v1+json", bytes(&config)?);
    let layer = blob("application/vnd.oci.image.layer.v1.tar+gzip", packed);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
        "annotations": labels,
    });
    let mut manifest = blob("application/vnd.oci.image.manifest.v1+json", bytes(&manifest)?);
    manifest["platform"] = json!({ "architecture": "amd64", "os": "linux" });
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": parts.version });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    layout.file("index.json", bytes(&index)?);
    layout.file("oci-layout", bytes(&json!({ "imageLayoutVersion": "1.0.0" }))?);
    Ok(layout)
}

/// Keys are sorted, so the same value has the same bytes and the same digest.
fn bytes(value: &Value) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::dist::parts::sample;

    #[test]
    fn each_digest_leads_to_its_blob() {
        let layout = build(&sample()).unwrap();
        assert_eq!(layout, build(&sample()).unwrap());
        let read = |path: &str| {
            let (_, file) = layout.files().find(|(name, _)| *name == path).unwrap();
            file.content.clone()
        };
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let content = read(&format!("blobs/sha256/{digest}"));
            assert_eq!(sha256(&content), digest);
            assert_eq!(descriptor["size"], content.len());
            content
        };
        let json = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
        assert_eq!(json(read("oci-layout"))["imageLayoutVersion"], "1.0.0");
        let index = json(read("index.json"));
        let manifest = json(blob(&index["manifests"][0]));
        let config = json(blob(&manifest["config"]));
        assert_eq!(config["config"]["Entrypoint"], json!(["/usr/bin/tcpwatch", "agent"]));
        assert_eq!(config["config"]["Labels"]["org.opencontainers.image.version"], "1.2.3");
        let layer = blob(&manifest["layers"][0]);
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(layer.as_slice()).read_to_end(&mut plain).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", sha256(&plain)));
    }
}
