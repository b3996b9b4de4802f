#!/usr/bin/env python3
"""Fills and asks emulators of object stores, as the stores' own clients do.

  clouds.py s3-fill ENDPOINT BUCKET FOLDER       makes a user, whose keys are printed, and lets nobody else in
  clouds.py s3-put ENDPOINT BUCKET KEY FILE      as that user, by the environment
  clouds.py s3-list ENDPOINT BUCKET              objects, and uploads that were not ended, as JSON
  clouds.py azure-fill ENDPOINT ACCOUNT KEY CONTAINER FOLDER    NAME.page becomes a page blob, of the pages that are not zero
  clouds.py google-fill ENDPOINT BUCKET FOLDER
"""

import json
import os
import sys
import urllib.parse
import urllib.request


def files(folder):
    for name in sorted(os.listdir(folder)):
        yield name, os.path.join(folder, name)


def s3_client(endpoint, kind="s3", **keys):
    import boto3

    return boto3.client(kind, endpoint_url=endpoint, region_name="us-east-1", **keys)


def s3_fill(endpoint, bucket, folder):
    anyone = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    s3 = s3_client(endpoint, **anyone)
    s3.create_bucket(Bucket=bucket)
    for name, path in files(folder):
        with open(path, "rb") as file:
            s3.put_object(Bucket=bucket, Key="d/" + name, Body=file)
    s3.put_object(Bucket=bucket, Key="d/cold.raw", Body=b"x" * 512, StorageClass="GLACIER")
    iam = s3_client(endpoint, "iam", **anyone)
    iam.create_user(UserName="u")
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    iam.put_user_policy(UserName="u", PolicyName="p", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName="u")["AccessKey"]
    plain = {"Content-Type": "text/plain"}
    urllib.request.urlopen(urllib.request.Request(endpoint + "/moto-api/reset-auth", b"0", plain)).read()
    print(key["AccessKeyId"], key["SecretAccessKey"])


def s3_put(endpoint, bucket, key, path):
    with open(path, "rb") as file:
        s3_client(endpoint).put_object(Bucket=bucket, Key=key, Body=file)


def s3_list(endpoint, bucket):
    s3 = s3_client(endpoint)
    objects = [one["Key"] for one in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]
    uploads = [one["Key"] for one in s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]
    print(json.dumps({"objects": objects, "uploads": uploads}))


def azure_fill(endpoint, account, key, container, folder):
    from azure.storage.blob import BlobServiceClient

    credential = {"account_name": account, "account_key": key}
    service = BlobServiceClient(f"{endpoint}/{account}", credential=credential)
    client = service.create_container(container)
    for name, path in files(folder):
        if name.endswith(".page"):
            pages(client.get_blob_client("d/" + name), path)
        else:
            with open(path, "rb") as file:
                client.upload_blob("d/" + name, file, overwrite=True)


def pages(blob, path):
    blob.create_page_blob(os.path.getsize(path))
    step = 1 << 20
    with open(path, "rb") as file:
        at = 0
        while part := file.read(step):
            if part.strip(b"\0"):
                blob.upload_page(part, offset=at, length=len(part))
            at += len(part)


def google_fill(endpoint, bucket, folder):
    for name, path in files(folder):
        query = urllib.parse.urlencode({"uploadType": "media", "name": "d/" + name})
        with open(path, "rb") as file:
            request = urllib.request.Request(f"{endpoint}/upload/storage/v1/b/{bucket}/o?{query}", data=file.read())
            urllib.request.urlopen(request).read()


if __name__ == "__main__":
    globals()[sys.argv[1].replace("-", "_")](*sys.argv[2:])
